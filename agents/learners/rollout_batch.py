"""Rollouts as RLlib batches, so that they travel through env runners and learner groups."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from torch import Tensor

from agents.learners.collector import Rollout

__all__ = ["TEAM", "RolloutBatch", "concatenate", "is_raw"]

TEAM = "__team__"


class RolloutBatch(MultiAgentBatch):
    """A rollout: columns ``[B, T, ...]`` per agent and, under ``__team__``, for the whole team.

    Sessions come first, so that RLlib's sharding over learners cuts along sessions.
    """

    def __init__(self, rollout: Rollout) -> None:
        """Args:
        rollout: what a collector gathered.
        """
        columns = {TEAM: SampleBatch(rollout.team)}
        columns.update({agent: SampleBatch(data) for agent, data in rollout.agents.items()})
        super().__init__(columns, env_steps=rollout.env_steps)
        self.metrics = rollout.metrics
        self.decisions = int(sum(float(data["active"].sum()) for data in rollout.agents.values()))

    def agent_steps(self) -> int:
        """Return the number of decisions: active agents, summed over sessions and time."""
        return self.decisions


def is_raw(batch: MultiAgentBatch) -> bool:
    """Return whether a batch holds rollouts rather than ready training data."""
    return TEAM in batch.policy_batches


def concatenate(batches: Sequence[RolloutBatch]) -> RolloutBatch:
    """Return the sessions of all batches as one; metrics are means weighted by env steps."""
    if len(batches) == 1:
        return batches[0]
    merged: dict[str, dict[str, Tensor]] = {
        name: {
            key: torch.cat([torch.as_tensor(b.policy_batches[name][key]) for b in batches])
            for key in data
        }
        for name, data in batches[0].policy_batches.items()
    }
    rollout = Rollout(merged.pop(TEAM), merged)
    total = sum(b.env_steps() for b in batches)
    names = {name for b in batches for name in b.metrics}
    for name in sorted(names):
        having = [b for b in batches if name in b.metrics]
        if name == "episodes_ended":
            rollout.metrics[name] = sum(b.metrics[name] for b in having)
            continue
        weights = [b.env_steps() / total for b in having]
        if name.startswith("episode/"):
            weights = [b.metrics["episodes_ended"] for b in having]
        rollout.metrics[name] = sum(
            w * b.metrics[name] for w, b in zip(weights, having, strict=True)
        ) / sum(weights)
    return RolloutBatch(rollout)
