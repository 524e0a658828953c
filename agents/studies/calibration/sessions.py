"""Sessions and counts of a log, real or simulated by a platform whose choices are known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from marec_env import random
from marec_env.data.log import Impressions, InteractionLog
from marec_env.data.times import session_lengths
from marec_env.users.base import Users

__all__ = ["Consumption", "Simulated", "consumption_of", "pooled", "simulate"]


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


@dataclass(frozen=True, slots=True)
class Simulated:
    """A simulated log."""

    consumption: Consumption
    impressions: Impressions
    """``user`` is the session; ``time`` the request."""
    first_probability: Tensor
    """Float32 ``[B, N]``: each session's probability of a click on each item, if examined, before
    the first request."""
    requests: Tensor
    """Int64 ``[B]``: requests until the user left or the limit."""


def consumption_of(log: InteractionLog, topics: Tensor, num_topics: int) -> Consumption:
    """Describe a log; topics int64 ``[N]``."""
    rates = {"like": float(log.liked.double().mean())}
    if log.impressions is None:
        rates |= _rates({name: v for name, v in log.behaviours.items() if name != "like"})
    else:  # interactions may hold more than clicks, such as visits of one's own accord
        rates |= _rates(_of_clicks(log.impressions))
    lengths = session_lengths(log.user, log.time)
    return _counted(lengths, log.item, rates, topics, num_topics)


def _of_clicks(shown: Impressions) -> dict[str, Tensor]:
    clicked = shown.behaviours["click"] > 0
    return {name: values[clicked] for name, values in shown.behaviours.items()}


def _rates(behaviours: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the mean of what is known of each behaviour beside the click."""
    return {
        name: float(values.double().nanmean())
        for name, values in behaviours.items()
        if name != "click" and not bool(values.isnan().all())
    }


def _counted(
    lengths: Tensor, item: Tensor, rates: dict[str, float], topics: Tensor, num_topics: int
) -> Consumption:
    items = torch.bincount(item, minlength=topics.shape[0])
    return Consumption(lengths, items, torch.bincount(topics[item], minlength=num_topics), rates)


def simulate(
    users: Users,
    weights: Tensor,
    topics: Tensor,
    num_topics: int,
    *,
    slate_size: int,
    max_requests: int,
    seed: int,
) -> Simulated:
    """Show slates drawn without replacement, in proportion to ``weights``, never an item twice.

    Args:
        users: B of them; they begin anew.
        weights: float ``[N]``, positive: equal ones are the random policy, popularity is what a log
            is mostly made by.
        topics: int64 ``[N]``.
        num_topics: T.
        slate_size: K.
        max_requests: a session's limit.
        seed: of the users and the slates.
    """
    sessions = torch.arange(users.num_sessions)
    keys = random.session_keys(seed, sessions)
    users.reset(keys)
    first = users.click_probability()
    score = weights.to(torch.float32).log().expand(users.num_sessions, -1).clone()
    active = torch.ones(users.num_sessions, dtype=torch.bool)
    requests = torch.zeros(users.num_sessions, dtype=torch.int64)
    logs = []
    for request in range(max_requests):
        noise = random.gumbel(keys, request, "calibration/slate", users.num_items)
        slate = torch.topk(score + noise, slate_size, dim=1).indices
        chosen = torch.gather(score, 1, slate).exp()
        left = score.exp().sum(1, keepdim=True) - (torch.cumsum(chosen, 1) - chosen)
        feedback = users.respond(slate)
        columns = {
            "user": sessions[:, None].expand_as(slate),
            "item": slate,
            "time": torch.full_like(slate, request),
            "position": torch.arange(slate_size).expand_as(slate),
            "propensity": (chosen / left).clamp(max=1.0),
        }
        shown = {name: column[active].flatten() for name, column in columns.items()}
        behaviours = {n: feedback.behaviours[n][active].flatten() for n in users.behaviours}
        logs.append(Impressions(**shown, behaviours=behaviours))
        requests += active
        score.scatter_(1, slate, -math.inf)
        active &= ~feedback.left
        if not bool(active.any()):
            break
    log = pooled(logs)
    clicked = log.behaviours["click"] > 0
    lengths = torch.bincount(log.user[clicked])
    lengths = lengths[lengths > 0]  # a log does not show who found nothing
    rates = _rates(_of_clicks(log))
    consumption = _counted(lengths, log.item[clicked], rates, topics, num_topics)
    return Simulated(consumption, log, first, requests)


def pooled(logs: Sequence[Impressions]) -> Impressions:
    """Join several logs; sessions of different logs keep equal numbers."""
    names = ("user", "item", "time", "position", "propensity")
    return Impressions(
        **{name: torch.cat([getattr(log, name) for log in logs]) for name in names},
        behaviours={
            name: torch.cat([log.behaviours[name] for log in logs]) for name in logs[0].behaviours
        },
    )
