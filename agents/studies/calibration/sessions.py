"""Sessions and counts of a log, real or simulated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from marec_env.data.log import InteractionLog
from marec_env.data.times import session_lengths

__all__ = ["Consumption", "consumption_of"]


@dataclass(frozen=True, slots=True)
class Consumption:
    """What was consumed, in a form that logs and simulations share."""

    session_lengths: Tensor
    """Int64 ``[S]``: items consumed in each session, at least 1."""
    item_counts: Tensor
    """Int64 ``[N]``."""
    topic_counts: Tensor
    """Int64 ``[T]``."""
    rates: dict[str, float]
    """Mean of each behaviour over the clicked impressions, or, where nothing is known of those,
    over the consumed items; ``like`` is the share liked unless the impressions hold likes."""


def consumption_of(log: InteractionLog, topics: Tensor, num_topics: int) -> Consumption:
    """Describe a log; topics int64 ``[N]``."""
    rates = {"like": float(log.liked.double().mean())}
    if log.impressions is None:
        behaviours = {name: v for name, v in log.behaviours.items() if name != "like"}
    else:  # interactions may hold more than clicks, such as visits of one's own accord
        shown = log.impressions.behaviours
        behaviours = {name: values[shown["click"] > 0] for name, values in shown.items()}
    rates |= {
        name: float(values.double().nanmean())
        for name, values in behaviours.items()
        if name != "click" and not bool(values.isnan().all())
    }
    return Consumption(
        session_lengths=session_lengths(log.user, log.time),
        item_counts=torch.bincount(log.item, minlength=log.num_items),
        topic_counts=torch.bincount(topics[log.item], minlength=num_topics),
        rates=rates,
    )
