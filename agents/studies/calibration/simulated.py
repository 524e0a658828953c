"""What simulated users do under a logging platform whose choices are known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from agents.studies.calibration.sessions import Consumption
from marec_env import random
from marec_env.data.log import Impressions

if TYPE_CHECKING:  # users lie above data; they are handed in
    from marec_env.users.base import Users

__all__ = ["Simulated", "pooled", "simulate"]


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
    blocks: dict[str, list[Tensor]] = {}
    position = torch.arange(slate_size)
    for request in range(max_requests):
        noise = random.gumbel(keys, request, "calibration/slate", users.num_items)
        slate = torch.topk(score + noise, slate_size, dim=1).indices
        chosen = torch.gather(score, 1, slate).exp()
        left = score.exp().sum(1, keepdim=True) - (torch.cumsum(chosen, 1) - chosen)
        feedback = users.respond(slate)
        shown = {
            "user": sessions[:, None].expand_as(slate),
            "item": slate,
            "time": torch.full_like(slate, request),
            "position": position.expand_as(slate),
            "propensity": (chosen / left).clamp(max=1.0),
            **feedback.behaviours,
        }
        for name, values in shown.items():
            blocks.setdefault(name, []).append(values[active].flatten())
        requests += active
        score.scatter_(1, slate, -math.inf)
        active &= ~feedback.left
        if not bool(active.any()):
            break
    column = {name: torch.cat(parts) for name, parts in blocks.items()}
    impressions = Impressions(
        user=column["user"],
        item=column["item"],
        time=column["time"],
        position=column["position"],
        propensity=column["propensity"],
        behaviours={name: column[name] for name in users.behaviours},
    )
    return Simulated(_consumption(impressions, topics, num_topics), impressions, first, requests)


def pooled(logs: Sequence[Impressions]) -> Impressions:
    """Join several logs; sessions of different logs keep equal numbers."""

    def join(columns: Iterable[Tensor]) -> Tensor:
        return torch.cat(list(columns))

    return Impressions(
        user=join(log.user for log in logs),
        item=join(log.item for log in logs),
        time=join(log.time for log in logs),
        position=join(log.position for log in logs),
        propensity=join(log.propensity for log in logs),
        behaviours={
            name: join(log.behaviours[name] for log in logs) for name in logs[0].behaviours
        },
    )


def _consumption(shown: Impressions, topics: Tensor, num_topics: int) -> Consumption:
    clicked = shown.behaviours["click"] > 0
    item = shown.item[clicked]
    per_session = torch.bincount(shown.user[clicked])
    return Consumption(
        session_lengths=per_session[per_session > 0],  # a log does not show who found nothing
        item_counts=torch.bincount(item, minlength=topics.shape[0]),
        topic_counts=torch.bincount(topics[item], minlength=num_topics),
        rates={
            name: float(values[clicked].double().mean()) if bool(clicked.any()) else 0.0
            for name, values in shown.behaviours.items()
            if name != "click"
        },
    )
