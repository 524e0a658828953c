"""``load_log``: from configuration to an interaction log, whatever its source."""

from __future__ import annotations

import logging
from dataclasses import replace

from marec_env.data.config import DataConfig
from marec_env.data.interactions import Impressions, InteractionLog, make_log
from marec_env.data.movielens import read_movielens
from marec_env.data.plausibility import check_liked, doubts
from marec_env.data.readers import read_plain
from marec_env.data.synthetic import generate_log

__all__ = ["Impressions", "InteractionLog", "load_log", "make_log"]

_LOG = logging.getLogger(__name__)


def load_log(config: DataConfig) -> InteractionLog:
    """Return the log that the configuration names.

    >>> load_log(DataConfig(source="synthetic/ecommerce")).num_users
    500

    What is unlikely about a log of one's own stands in its ``warnings``, which are logged as well.

    Raises:
        DataError: a file is missing, empty, or has bad rows, unknown or duplicate identifiers; or
            nothing in the log counts as liked.
        AssetError: the MovieLens package is missing or its files are not the known ones.
        ConfigError: the scenario of ``synthetic/<scenario>`` is unknown or too large for memory.
    """
    if config.source == "movielens-100k":
        log = read_movielens(config)
    elif config.source.startswith("synthetic/"):
        log = generate_log(config)
    else:
        log = read_plain(config)
        log = replace(log, warnings=log.warnings + tuple(doubts(log)))
    check_liked(log)
    for line in log.warnings:
        _LOG.warning("warning: %s: %s", config.source, line)
    return log
