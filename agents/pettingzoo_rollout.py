"""Evaluation on other people's environments: returns on a cohort of episodes, the same for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from agents.pettingzoo_adapter import PettingZooVectorEnv
from marec_env.evaluation.policies import DrawingPolicy
from marec_env.evaluation.rollout import RolloutResult
from marec_env.random import session_keys
from marec_env.vector import Action

_LONGEST = 10_000  # steps at which an episode that does not end is cut


@runtime_checkable
class MaskedPolicy(Protocol):
    """A team that obeys action masks; see :class:`marec_env.evaluation.policies.TeamPolicy`."""

    def reset(self) -> None:
        """Begin new episodes everywhere."""
        ...

    def act(
        self, observations: Mapping[str, Tensor], *, action_masks: Mapping[str, Any] | None
    ) -> dict[str, Action]:
        """Act for all agents; masks as :attr:`marec_env.vector.VecStep.action_masks`."""
        ...


@torch.no_grad()
def play_episodes(
    env: PettingZooVectorEnv, policy: MaskedPolicy, episodes: int, seed: int
) -> RolloutResult:
    """Play episodes ``0 ... episodes - 1`` once each; what they begin with depends on their number
    and the seed alone, so two policies are compared episode by episode.

    Returns:
        ``return`` (sum of rewards, mean over agents), ``return/<agent>`` and ``length`` (steps);
        an episode that does not end is cut after 10,000 steps.
    """
    parts = []
    for first in range(0, episodes, env.num_envs):
        numbers = torch.arange(first, first + env.num_envs)
        found = _batch(env, policy, numbers, seed)
        parts.append({name: value[: episodes - first] for name, value in found.items()})
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return RolloutResult(seed, torch.arange(episodes), joined)


def _batch(
    env: PettingZooVectorEnv, policy: MaskedPolicy, numbers: Tensor, seed: int
) -> dict[str, Tensor]:
    policy.reset()
    if isinstance(policy, DrawingPolicy):
        policy.begin(session_keys(seed, numbers))
    step = env.begin(numbers, seed)
    alive = torch.ones(env.num_envs)
    total = {agent: torch.zeros(env.num_envs) for agent in env.agents}
    length = torch.zeros(env.num_envs)
    for _ in range(_LONGEST):
        step = env.step(policy.act(step.observations, action_masks=step.action_masks))
        for agent, reward in step.rewards.items():
            total[agent] += alive * reward
        length += alive
        alive = alive * ~(step.terminated | step.truncated)
        if not alive.any():
            break
    mean = torch.stack(list(total.values())).mean(dim=0)
    each = {f"return/{agent}": value for agent, value in total.items()}
    return {"return": mean, "length": length, **each}
