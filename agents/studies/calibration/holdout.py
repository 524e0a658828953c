"""Interactions that the factors did not see, and the questions that are asked about them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from marec_env import random
from marec_env.data.log import InteractionLog
from marec_env.errors import DataError

__all__ = ["Cases", "Split", "cases_among_rated", "cases_against_random", "cases_shown", "split"]

TRAIN, TUNE, TEST = 0, 1, 2
_TRAIN_SHARE, _TUNE_SHARE = 0.6, 0.2  # of each user's interactions in time, or of the time span


@dataclass(frozen=True, slots=True)
class Split:
    """Which part each interaction, and each impression, belongs to."""

    interactions: Tensor
    """Int64 ``[R]``: ``TRAIN``, ``TUNE`` or ``TEST``."""
    impressions: Tensor | None
    """Int64 ``[M]``, or ``None`` if the log has none."""


@dataclass(frozen=True, slots=True)
class Cases:
    """User-item pairs with what happened."""

    user: Tensor
    """Int64 ``[M]``."""
    item: Tensor
    """Int64 ``[M]``."""
    event: Tensor
    """Bool ``[M]``."""
    position: Tensor | None = None
    """Int64 ``[M]``, the place in the slate, if the examination is to be fitted."""


def split(log: InteractionLog) -> Split:
    """Cut the log in time: factors are fitted on the first part, the click model's few coefficients
    on the second, and all is judged on the third.

    With impressions the cuts are the same moments for everybody, so that nothing of the future
    leaks through other users; without, they are shares of each user's interactions, because in logs
    like MovieLens most users stay for a single day; so it is, with impressions drawn at random,
    where times do not tell three parts apart.
    """
    shares = torch.tensor([_TRAIN_SHARE, _TRAIN_SHARE + _TUNE_SHARE], dtype=torch.float64)
    if log.impressions is not None:
        cuts = torch.quantile(log.impressions.time.to(torch.float64), shares).to(torch.int64)
        both = [
            torch.bucketize(time, cuts, right=True) for time in (log.time, log.impressions.time)
        ]
        if all(torch.bincount(part, minlength=TEST + 1).all() for part in both):
            return Split(*both)
    count = torch.bincount(log.user, minlength=log.num_users)
    place = torch.arange(log.num_interactions) - (torch.cumsum(count, 0) - count)[log.user]
    fraction = (place.to(torch.float64) + 0.5) / count[log.user]
    shown = None
    if log.impressions is not None:
        keys = random.session_keys(0, torch.arange(log.impressions.user.numel()))
        drawn = random.uniform(keys, 0, "calibration/split", 1).squeeze(1)
        shown = torch.bucketize(drawn.to(torch.float64), shares)
    return Split(interactions=torch.bucketize(fraction, shares), impressions=shown)


def cases_among_rated(log: InteractionLog, part: Tensor) -> Cases:
    """Ask which of the consumed items were liked.

    Args:
        log: the whole log.
        part: bool ``[R]``, which interactions to ask about.
    """
    return Cases(log.user[part], log.item[part], log.liked[part])


def cases_against_random(log: InteractionLog, part: Tensor, negatives: int, seed: int) -> Cases:
    """Ask which of some items is one that the user went on to like; the others are items drawn
    evenly among those that the user never met, ``negatives`` for each liked one.

    Raises:
        DataError: nothing was liked in that part.
    """
    chosen = part & log.liked
    user, item = log.user[chosen], log.item[chosen]
    if user.numel() == 0:
        raise DataError(
            "calibration: no liked interaction in a held-out part; the log is too small or "
            f"data.like_threshold ({log.like_threshold}) too high"
        )
    keys = random.session_keys(seed, torch.arange(user.numel()))
    drawn = random.integers(keys, 0, "calibration/negative", negatives, log.num_items).flatten()
    of = user.repeat_interleave(negatives)
    met = torch.unique(log.user * log.num_items + log.item)
    cell = of * log.num_items + drawn
    place = torch.searchsorted(met, cell).clamp_max(met.numel() - 1)
    unmet = met[place] != cell
    event = torch.zeros(user.numel() + int(unmet.sum()), dtype=torch.bool)
    event[: user.numel()] = True
    return Cases(torch.cat([user, of[unmet]]), torch.cat([item, drawn[unmet]]), event)


def cases_shown(log: InteractionLog, part: Tensor) -> Cases:
    """Ask which of the impressions were clicked.

    Args:
        log: a log with impressions.
        part: bool ``[M]``, which impressions to ask about.
    """
    shown = log.impressions
    if shown is None:
        raise DataError("calibration: the log has no impressions")
    return Cases(
        shown.user[part],
        shown.item[part],
        shown.behaviours["click"][part] > 0,
        shown.position[part],
    )
