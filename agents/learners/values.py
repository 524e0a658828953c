"""What a critic says about a rollout, what it should have said, and the advantages between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from agents.learners.losses import explained_variance
from agents.learners.rl_modules import CriticModule, CriticPlan, FamilyConfig

__all__ = ["CriticTargets", "evaluate_critic", "generalised_advantages", "normalise_advantages"]

Columns = Mapping[str, Tensor]

_STD_FLOOR = 1e-5  # keeps constant advantages from being divided by zero


@dataclass
class CriticTargets:
    """Advantages by agent and one critic's training data, ``[N, T, ...]``."""

    advantages: dict[str, Tensor]
    """Per agent, ``[B, T]``, in units of reward."""
    raw_inputs: Tensor
    inputs: Tensor
    """Normalised."""
    old_values: Tensor
    """Normalised, ``[N, T, heads]``."""
    targets: Tensor
    """In units of reward, ``[N, T, heads]``."""
    weights: Tensor
    """1 where the value counts, ``[N, T, heads]``."""
    starts: Tensor
    memory: Tensor
    last_memory: Tensor | None
    explained_variance: float

    def columns(self, module: CriticModule, sequences: bool) -> dict[str, Tensor]:
        """Return training data in the critic's units, after moving its value statistics."""
        if module.value_norm is not None:
            module.value_norm.update(self.targets, self.weights)
        data = {
            "inputs": self.inputs,
            "old_values": self.old_values,
            "targets": module.normalise(self.targets),
            "weights": self.weights,
        }
        if sequences:
            return {**data, "starts": self.starts, "memory": self.memory}
        return {key: column.flatten(0, 1) for key, column in data.items()}


def _team_reward(data: Mapping[str, Columns], agents: tuple[str, ...], source: str) -> Tensor:
    stacked = torch.stack([data[agent]["rewards"] for agent in agents])
    return stacked.sum(dim=0) if source == "team_sum" else stacked.mean(dim=0)


def _inputs(plan: CriticPlan, team: Columns, data: Mapping[str, Columns], after: bool) -> Tensor:
    """Return a critic's inputs ``[N, T, d]`` before or after each step; N = B, or agents × B."""
    state = team["next_state" if after else "state"]
    if plan.central:
        return state
    key = "next_observations" if after else "observations"
    rows = [data[agent][key] for agent in plan.agents]
    if plan.source == "state_and_observation":
        rows = [torch.cat([state, row], dim=-1) for row in rows]
    return torch.cat(rows)


@torch.no_grad()
def _values(
    module: CriticModule,
    inputs: Tensor,
    next_inputs: Tensor,
    ended: Tensor,
    starts: Tensor,
    memory: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return normalised values before the steps, after them (where needed), and the last memory."""
    net = module.net
    if net.memory_size:
        values, memories = net.sequence(inputs, starts, memory)
        flat = memories.flatten(0, 1)
        after, _ = net(next_inputs.flatten(0, 1), flat)
        last = memories[:, -1] * (~ended[:, -1]).to(values.dtype).unsqueeze(-1)
        return values, after.view_as(values), last
    values, _ = net(inputs)
    after = torch.zeros_like(values)
    after[:, :-1] = values[:, 1:]
    needed = ended.clone()
    needed[:, -1] = True
    after[needed] = net(next_inputs[needed])[0]
    return values, after, None


def evaluate_critic(
    module: CriticModule,
    plan: CriticPlan,
    config: FamilyConfig,
    team: Columns,
    data: Mapping[str, Columns],
    memory: Tensor | None,
) -> CriticTargets:
    """Return advantages and targets from one critic's values.

    Args:
        module: network and value normaliser.
        plan: whom the critic serves and what it sees.
        config: discounts and the source of the reward.
        team: the rollout's team columns, ``[B, T, ...]``.
        data: the rollout's columns per agent.
        memory: recurrent state ``[N, M]`` at the start, if one was kept; used when it fits.
    """
    blocks = 1 if plan.central else len(plan.agents)
    raw = _inputs(plan, team, data, after=False)
    inputs = module.net.trunk.normalise(raw)
    next_inputs = module.net.trunk.normalise(_inputs(plan, team, data, after=True))
    starts = team["starts"].repeat(blocks, 1)
    rows = inputs.shape[0]
    if memory is None or memory.shape[0] != rows:
        memory = inputs.new_zeros(rows, module.net.memory_size)
    rewards, terminated, ended, active = _streams(plan, config, team, data)
    old, after, last = _values(module, inputs, next_inputs, ended.any(dim=-1), starts, memory)
    values, next_values = module.denormalise(old), module.denormalise(after)
    advantages, targets = generalised_advantages(
        rewards, values, next_values, ended, terminated, config.gamma, config.gae_lambda, active
    )
    weights = active.to(torch.float32)
    sessions = team["ended"].shape[0]
    by_agent = {}
    for index, agent in enumerate(plan.agents):
        if plan.central:
            by_agent[agent] = advantages[..., index if plan.heads > 1 else 0]
        else:
            by_agent[agent] = advantages[index * sessions : (index + 1) * sessions, :, 0]
    return CriticTargets(
        advantages=by_agent,
        raw_inputs=raw,
        inputs=inputs,
        old_values=old,
        targets=targets,
        weights=weights,
        starts=starts,
        memory=memory,
        last_memory=last,
        explained_variance=float(explained_variance(values, targets, weights)),
    )


def _streams(
    plan: CriticPlan, config: FamilyConfig, team: Columns, data: Mapping[str, Columns]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return rewards, terminated, ended and active of the values, ``[N, T, heads]`` each."""
    everyone = tuple(data)
    if plan.central and config.reward != "own":
        active = torch.stack([data[agent]["active"] for agent in plan.agents]).any(dim=0)
        reward = _team_reward(data, everyone, config.reward)
        columns = (reward, team["terminated"], team["ended"], active)
        a, b, c, d = (column.unsqueeze(-1) for column in columns)
        return a, b, c, d
    rewards, terminated, ended, active_list = [], [], [], []
    shared = None if config.reward == "own" else _team_reward(data, everyone, config.reward)
    for agent in plan.agents:
        source = data[agent]
        rewards.append(source["rewards"] if shared is None else shared)
        ends = source if shared is None else team
        terminated.append(ends["terminated"])
        ended.append(ends["ended"])
        active_list.append(source["active"])
    if plan.central:
        a, b, c, d = (
            torch.stack(column, dim=-1) for column in (rewards, terminated, ended, active_list)
        )
        return a, b, c, d
    a, b, c, d = (
        torch.cat(column).unsqueeze(-1) for column in (rewards, terminated, ended, active_list)
    )
    return a, b, c, d


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
