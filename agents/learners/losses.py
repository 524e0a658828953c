"""What is learnt from a rollout: what critics should have said, advantages, and PPO's losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from agents.learners.config import PPOFamily
from agents.learners.team import TeamSpec

if TYPE_CHECKING:
    from agents.learners.rl_modules import CriticModule

Columns = Mapping[str, Tensor]

_STD_FLOOR = 1e-5  # of the root mean square; keeps what is constant but for rounding small
_LEAST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class CriticPlan:
    """Whom a critic serves and what it sees."""

    agents: tuple[str, ...]
    source: str
    """``state``, ``observation`` or ``state_and_observation``."""
    heads: int
    """Values a critic of the state gives: one for the team, or one for each agent. Other critics
    have one head and a row for each agent."""
    num_inputs: int

    @property
    def central(self) -> bool:
        """Whether one row of input serves all agents."""
        return self.source == "state"


def critic_plans(config: PPOFamily, team: TeamSpec) -> dict[str, CriticPlan]:
    """Return the critics of an algorithm by module name."""
    num_state = int(team.state_space.shape[0])
    if config.critic_input == "state":
        heads = len(team.agents) if config.reward == "own" else 1
        return {"critic": CriticPlan(team.agents, "state", heads, num_state)}
    shown = num_state if config.critic_input == "state_and_observation" else 0
    return {
        f"critic_{actor}": CriticPlan(
            agents, config.critic_input, 1, shown + int(team.observation_spaces[agents[0]].shape[0])
        )
        for actor, agents in team.actors.items()
    }


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
    explained_variance: Tensor
    """A single number."""

    def columns(self, module: CriticModule, sequences: bool) -> dict[str, Tensor]:
        """Return training data in the critic's units, after moving its value statistics.

        The critic is rescaled with them, so that its values in units of reward stay.
        """
        old_values = self.old_values
        if module.value_norm is not None:
            factor, offset = module.value_norm.update(self.targets, self.weights)
            module.net.rescale(factor, offset)
            old_values = old_values * factor + offset
        data = {
            "inputs": self.inputs,
            "old_values": old_values,
            "targets": module.normalise(self.targets),
            "weights": self.weights,
        }
        if sequences:
            return {**data, "starts": self.starts, "memory": self.memory}
        return {key: column.flatten(0, 1) for key, column in data.items()}


def _inputs(plan: CriticPlan, team: Columns, data: Mapping[str, Columns], next_: str) -> Tensor:
    """Return a critic's inputs ``[N, T, d]``, N = B or agents × B; ``next_`` those after a step."""
    state = team[f"{next_}state"]
    if plan.central:
        return state
    rows = [data[agent][f"{next_}observations"] for agent in plan.agents]
    if plan.source == "state_and_observation":
        rows = [torch.cat([state, row], dim=-1) for row in rows]
    return torch.cat(rows)


@torch.no_grad()
def _values(
    module: CriticModule, inputs: Tensor, next_inputs: Tensor, ended: Tensor, starts: Tensor,
    memory: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Return normalised values before the steps, after them (where needed), and the last memory."""
    net = module.net
    if net.memory_size:
        values, memories = net(inputs, memory, starts)
        after, _ = net(next_inputs.flatten(0, 1), memories.flatten(0, 1))
        last = memories[:, -1] * (~ended[:, -1]).to(values.dtype).unsqueeze(-1)
        return values, after.view_as(values), last
    values, _ = net(inputs)
    after = torch.zeros_like(values)
    after[:, :-1] = values[:, 1:]
    needed = ended.clone()
    needed[:, -1] = True
    if values.is_cuda:  # counting the rows that are needed costs more than evaluating all
        after = torch.where(needed.unsqueeze(-1), net(next_inputs)[0], after)
    else:
        after[needed] = net(next_inputs[needed])[0]
    return values, after, None


def evaluate_critic(
    module: CriticModule, plan: CriticPlan, config: PPOFamily, team: Columns,
    data: Mapping[str, Columns], memory: Tensor | None,
) -> CriticTargets:  # fmt: skip
    """Return advantages and targets from one critic's values.

    Args:
        module: network and value normaliser.
        plan: whom the critic serves and what it sees.
        config: discounts and the source of the reward.
        team: the rollout's team columns, ``[B, T, ...]``.
        data: the rollout's columns per agent.
        memory: recurrent state ``[N, M]`` at the start, if one was kept; used when it fits.
    """
    raw = _inputs(plan, team, data, "")
    inputs = module.net.trunk.normalise(raw)
    next_inputs = module.net.trunk.normalise(_inputs(plan, team, data, "next_"))
    starts = team["starts"].repeat(1 if plan.central else len(plan.agents), 1)
    rows = inputs.shape[0]
    if memory is None or memory.shape[0] != rows:
        memory = inputs.new_zeros(rows, module.net.memory_size)
    rewards, terminated, ended, active = _streams(plan, config, team, data)
    old, after, last = _values(module, inputs, next_inputs, ended.any(dim=-1), starts, memory)
    values = module.denormalise(old)
    advantages, targets = generalised_advantages(
        rewards, values, module.denormalise(after), ended, terminated,
        config.gamma, config.gae_lambda, active,
    )  # fmt: skip
    weights = active.to(torch.float32)
    if plan.central:
        each = [advantages[..., i if plan.heads > 1 else 0] for i in range(len(plan.agents))]
    else:
        each = list(advantages[..., 0].chunk(len(plan.agents)))
    return CriticTargets(
        advantages=dict(zip(plan.agents, each, strict=True)),
        raw_inputs=raw,
        inputs=inputs,
        old_values=old,
        targets=targets,
        weights=weights,
        starts=starts,
        memory=memory,
        last_memory=last,
        explained_variance=explained_variance(values, targets, weights),
    )


def _streams(
    plan: CriticPlan, config: PPOFamily, team: Columns, data: Mapping[str, Columns]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return rewards, terminated, ended and active of the values, ``[N, T, heads]`` each."""
    own = [data[agent] for agent in plan.agents]
    ends = own
    paid = [source["rewards"] for source in own]
    active = [source["active"] for source in own]
    if config.reward != "own":
        everyone = torch.stack([source["rewards"] for source in data.values()])
        total = everyone.sum(dim=0) if config.reward == "team_sum" else everyone.mean(dim=0)
        if plan.central:
            active = [torch.stack(active).any(dim=0)]
        paid, ends = [total] * len(active), [team] * len(active)
    columns = (
        paid,
        [source["terminated"] for source in ends],
        [source["ended"] for source in ends],
        active,
    )
    if plan.central:
        a, b, c, d = (torch.stack(list(column), dim=-1) for column in columns)
    else:
        a, b, c, d = (torch.cat(list(column)).unsqueeze(-1) for column in columns)
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
    floor = _STD_FLOOR * (variance + mean.square()).sqrt()
    std = torch.maximum(variance.sqrt(), floor)
    return (values - mean) / torch.where(std == 0, 1.0, std)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of ``values`` over entries of weight 1; 0 where there is none."""
    # A product with weight 0 would keep NaN and infinity of entries that do not count.
    counted = torch.where(weights > 0, values, 0.0)
    return (counted * weights).sum() / weights.sum().clamp_min(1.0)


def clipped_policy_loss(
    log_ratio: Tensor, advantages: Tensor, weights: Tensor, clip: float
) -> Tensor:
    """Return PPO's clipped surrogate loss (Schulman et al., arXiv 1707.06347, equation 7).

    Args:
        log_ratio: log of new over old probability of the joint action, ``[N]``.
        advantages: ``[N]``.
        weights: ``[N]``, 1 for decisions that count and 0 for others.
        clip: ε.
    """
    ratio = log_ratio.exp()
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1.0 - clip, 1.0 + clip) * advantages)
    return -weighted_mean(surrogate, weights)


def clipped_value_loss(
    values: Tensor,
    old_values: Tensor,
    targets: Tensor,
    weights: Tensor,
    delta: float,
    clip: float | None,
) -> Tensor:
    """Return the Huber value loss, the worse of the value and the value clipped to the old one.

    Args:
        values: ``[N, heads]``, like the next three.
        old_values: those with which the advantages were computed.
        targets: in the units of the values.
        weights: 1 for entries that count and 0 for others.
        delta: error beyond which the loss is linear.
        clip: largest useful distance from the old value; None for no clipping.
    """
    loss = torch.nn.functional.huber_loss(values, targets, reduction="none", delta=delta)
    if clip is not None:
        near = old_values + (values - old_values).clamp(-clip, clip)
        loss = torch.maximum(
            loss, torch.nn.functional.huber_loss(near, targets, reduction="none", delta=delta)
        )
    return weighted_mean(loss, weights)


def explained_variance(predictions: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return 1 - Var(target - prediction) / Var(target) over entries of weight 1; 0 if constant."""
    mean = weighted_mean(targets, weights)
    variance = weighted_mean((targets - mean).square(), weights)
    error = targets - predictions
    residual = weighted_mean((error - weighted_mean(error, weights)).square(), weights)
    return torch.where(variance > 0, 1.0 - residual / variance.clamp_min(_LEAST), 0.0)


def not_finite(columns: Mapping[str, Tensor]) -> list[str]:
    """Return the names of columns that are not finite where they count."""
    counted = columns["weights"] > 0
    rows = counted if "advantages" in columns else counted.any(dim=-1)  # critics have heads
    return [
        key
        for key, column in columns.items()
        if column.shape[: rows.dim()] == rows.shape and not torch.isfinite(column[rows]).all()
    ]
