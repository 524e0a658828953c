"""What a rollout found out about one policy."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from marec_env.errors import ConfigError

__all__ = ["Outcomes", "join"]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """One policy on ``S`` sessions; equal ``seed`` and sessions make two of them comparable."""

    seed: int
    sessions: Tensor
    """Int64 ``[S]``: which sessions were run."""
    per_session: dict[str, Tensor]
    """Float32 ``[S]`` by outcome; NaN where a session has none (nothing relevant, no history)."""
    user: Tensor
    """Int64 ``[S]``: who the user was."""
    group: Tensor
    """Int64 ``[S]``: the user's group."""
    group_names: tuple[str, ...]
    is_new: Tensor
    """Bool ``[S]``: the recommender had no history of the user."""
    impressions: Tensor
    """Float32 ``[N]``: how often each item was shown."""
    clicks: Tensor
    """Float32 ``[N]``: how often each item was clicked."""
    funnel: dict[str, Tensor]
    """Float32 ``[S]`` by stage, in order: relevant items that survived it, per request."""
    item_groups: dict[str, Tensor] = field(default_factory=dict)
    """Int64 ``[N]`` by division (``provider``, ``popularity``): the group of each item."""

    def means(self) -> dict[str, float]:
        """Return the mean of each outcome over the sessions that have it."""
        return {name: float(values.nanmean()) for name, values in self.per_session.items()}


def join(parts: list[Outcomes]) -> Outcomes:
    """Return the outcomes of all sessions of several rollouts of one policy under one seed.

    Raises:
        ConfigError: nothing to join.
    """
    if not parts:
        raise ConfigError("no sessions were evaluated; ask for at least one")
    first = parts[0]
    return Outcomes(
        seed=first.seed,
        sessions=torch.cat([part.sessions for part in parts]),
        per_session={
            name: torch.cat([part.per_session[name] for part in parts])
            for name in first.per_session
        },
        user=torch.cat([part.user for part in parts]),
        group=torch.cat([part.group for part in parts]),
        group_names=first.group_names,
        is_new=torch.cat([part.is_new for part in parts]),
        impressions=torch.stack([part.impressions for part in parts]).sum(dim=0),
        clicks=torch.stack([part.clicks for part in parts]).sum(dim=0),
        funnel={stage: torch.cat([part.funnel[stage] for part in parts]) for stage in first.funnel},
        item_groups=first.item_groups,
    )
