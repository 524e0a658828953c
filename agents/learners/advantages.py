"""Generalised advantage estimation and advantage normalisation."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["generalised_advantages", "normalise_advantages"]

_STD_FLOOR = 1e-5  # keeps constant advantages from being divided by zero


def generalised_advantages(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    ended: Tensor,
    terminated: Tensor,
    gamma: float,
    gae_lambda: float,
    active: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return advantages and value targets (Schulman et al., arXiv 1506.02438).

    A terminated episode has no future; a truncated one, and the end of the rollout, bootstrap from
    the value of the state reached. With ``active``, steps at which the agent did not decide are
    bridged: their rewards are paid, discounted, to the decision before them.

    Args:
        rewards: ``[B, T]`` or ``[B, T, heads]``, like all others.
        values: of the state before each step.
        next_values: of the state after each step, before autoreset; used where an episode ended
            and at the last step (elsewhere the next ``values`` are the same).
        ended: bool, the episode ended in this step, by termination or truncation.
        terminated: bool, it ended by itself.
        gamma: discount per step.
        gae_lambda: λ.
        active: bool, whether the agent decided at the step; None for always.

    Returns:
        advantages (0 at inactive steps) and targets ``advantages + values``.
    """
    length = rewards.shape[1]
    live = (~ended).to(rewards.dtype)
    bootstrap = (~terminated).to(rewards.dtype)
    deciding = torch.ones_like(rewards) if active is None else active.to(rewards.dtype)
    advantages = torch.zeros_like(rewards)
    # Of the next decision, seen from the step after the current one: its discounted value plus the
    # rewards until then, and its discounted advantage.
    future_value = next_values[:, -1]
    future_advantage = torch.zeros_like(future_value)
    for t in range(length - 1, -1, -1):
        value_after = torch.where(ended[:, t], next_values[:, t], future_value)
        value_after = value_after * bootstrap[:, t]
        advantage_after = future_advantage * live[:, t]
        outcome = rewards[:, t] + gamma * value_after
        advantage = outcome - values[:, t] + gamma * gae_lambda * advantage_after
        now = deciding[:, t]
        advantages[:, t] = advantage * now
        future_value = now * values[:, t] + (1.0 - now) * outcome
        # λ counts decisions: an inactive step only discounts.
        future_advantage = now * advantage + (1.0 - now) * gamma * advantage_after
    return advantages, advantages + values


def normalise_advantages(
    advantages: dict[str, Tensor], weights: dict[str, Tensor], scope: str
) -> dict[str, Tensor]:
    """Return advantages with mean 0 and standard deviation 1 over entries of weight 1.

    Args:
        advantages: per agent, ``[B, T]``.
        weights: per agent, ``[B, T]``, 1 where the agent decided and 0 elsewhere.
        scope: ``team`` (all agents together), ``agent`` (each by itself) or ``none``.
    """
    if scope == "none":
        return advantages
    if scope == "agent":
        return {agent: _standardise(values, weights[agent]) for agent, values in advantages.items()}
    stacked = torch.stack(list(advantages.values()))
    stacked = _standardise(stacked, torch.stack([weights[agent] for agent in advantages]))
    return dict(zip(advantages, stacked, strict=True))


def _standardise(values: Tensor, weights: Tensor) -> Tensor:
    total = weights.sum().clamp_min(1.0)
    mean = (values * weights).sum() / total
    variance = ((values - mean).square() * weights).sum() / total
    return (values - mean) / (variance.sqrt() + _STD_FLOOR)
