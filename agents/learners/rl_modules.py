"""What RLlib moves about: networks as its modules, rollouts as its batches."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from torch import Tensor

from agents.learners.collector import Rollout
from agents.learners.config import PPOFamily
from agents.learners.losses import critic_plans, not_finite
from agents.learners.networks import Critic, ValueNormaliser
from agents.learners.team import TeamSpec
from marec_env.errors import RunError

INPUTS = "distribution_inputs"
VALUES = "values"
TEAM = "__team__"

# RLlib warns of a constructor argument that only RLlib itself passes.
logging.getLogger("ray._common.deprecation").setLevel(logging.ERROR)

_PROBED = 64
"""Rows (or sequences) that are looked at."""


class _Module(TorchRLModule):
    """A network as an RLlib module."""

    def train(self, mode: bool = True) -> _Module:
        """Set training mode, unless it is set: RLlib asks before every pass of every module."""
        return self if self.training == mode else super().train(mode)

    def gives_finite(self, batch: Mapping[str, Tensor]) -> bool:
        """Return whether what comes out for the first rows is finite where it counts."""
        batch = {key: column[:_PROBED] for key, column in batch.items()}
        return bool(torch.isfinite(self._probe(batch)[batch["weights"] > 0]).all())


class ActorModule(_Module):
    """An actor as an RLlib module; ``model_config`` holds ``team``, ``config`` and ``actor``."""

    def setup(self) -> None:
        """Build the network."""
        model = self.model_config
        self.net = model["team"].build_actor(model["config"], model["actor"])

    def _forward(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """Return distribution inputs of flat decisions, or of sequences given a ``memory``."""
        rest = (batch.get(key) for key in ("memory", "agent_id", "starts"))
        return {INPUTS: self.net.decide(batch["observations"], *rest)[0]}

    def _probe(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return what is finite if draws, their probabilities and the entropies are."""
        distribution, inputs = self.net.distribution, self._forward(batch)[INPUTS]
        mask = batch.get("masks")
        quantiles = inputs.new_full((*inputs.shape[:-1], distribution.num_uniforms), 0.3)
        drawn = distribution.sample(inputs, quantiles, mask)
        log_p, entropy = distribution.evaluate(inputs, drawn, mask)
        found: Tensor = inputs.sum(-1) + drawn.sum(-1) + log_p + entropy
        return found


class CriticModule(_Module):
    """A critic with its value normaliser; only learners hold it. ``model_config`` holds ``plan``
    and ``config``.
    """

    def setup(self) -> None:
        """Build network and normaliser."""
        plan, config = self.model_config["plan"], self.model_config["config"]
        self.net = Critic(plan.num_inputs, config.critic, plan.heads)
        self.value_norm = ValueNormaliser(plan.heads) if config.normalise_values else None

    def _forward(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """Return normalised values of flat inputs, or of sequences given a ``memory``."""
        return {VALUES: self.net(batch["inputs"], batch.get("memory"), batch.get("starts"))[0]}

    def _probe(self, batch: Mapping[str, Tensor]) -> Tensor:
        return self._forward(batch)[VALUES]

    def forget_values(self) -> None:
        """Start statistics of values anew."""
        if self.value_norm is not None:
            self.value_norm.forget()

    def denormalise(self, values: Tensor) -> Tensor:
        """Return values in units of reward."""
        return self.value_norm.denormalise(values) if self.value_norm is not None else values

    def normalise(self, values: Tensor) -> Tensor:
        """Return values in the critic's units."""
        return self.value_norm.normalise(values) if self.value_norm is not None else values


@torch.no_grad()
def require_finite(
    update: str, modules: Mapping[str, Any], data: Mapping[str, Mapping[str, Tensor]],
    unlearnt: Collection[str], rates: Mapping[str, float],
) -> None:  # fmt: skip
    """Say which network an update made diverge, or could not teach anything.

    Args:
        update: which, for messages.
        modules: actors and critics that were updated.
        data: what they learnt from.
        unlearnt: those of which no gradient was finite.
        rates: their learning rates.

    Raises:
        RunError: one did.
    """
    diverged = [name for name in modules if not modules[name].gives_finite(data[name])]
    for name in [*diverged, *(n for n in modules if n in unlearnt and n not in diverged)]:
        bad = not_finite(data[name])
        if name not in diverged or {"inputs", "observations"} & set(bad):
            raise RunError(
                f"{update} could teach the network '{name}' nothing: no gradient was finite,"
                f" nor its data's {', '.join(bad) or 'losses'}; look at the environment's"
                " rewards and observations"
            )
        prefix = "critic_" if isinstance(modules[name], CriticModule) else ""
        raise RunError(
            f"training diverged: {update} made the network '{name}' give numbers that are not"
            f" finite; try a smaller algorithm.{prefix}learning_rate (of this network"
            f" {rates[name]:g}) or rewards nearer to 1"
        )


def multi_module_spec(config: PPOFamily, team: TeamSpec) -> MultiRLModuleSpec:
    """Return the specification of all actors, and of the critics as learner-only modules."""
    specs = {
        actor: RLModuleSpec(
            module_class=ActorModule,
            observation_space=team.observation_spaces[agents[0]],
            action_space=team.action_spaces[agents[0]],
            model_config={"team": team, "config": config, "actor": actor},
        )
        for actor, agents in team.actors.items()
    }
    for name, plan in critic_plans(config, team).items():
        specs[name] = RLModuleSpec(
            module_class=CriticModule,
            observation_space=spaces.Box(-np.inf, np.inf, (plan.num_inputs,), np.float32),
            action_space=spaces.Box(-np.inf, np.inf, (plan.heads,), np.float32),
            model_config={"plan": plan, "config": config},
            learner_only=True,
        )
    return MultiRLModuleSpec(rl_module_specs=specs)


class RolloutBatch(MultiAgentBatch):
    """A rollout: columns ``[B, T, ...]`` per agent and, under ``__team__``, for the whole team.

    Sessions come first, so that RLlib's sharding over learners cuts along sessions.
    """

    def __init__(self, rollout: Rollout) -> None:
        columns = {TEAM: SampleBatch(rollout.team)}
        columns.update({agent: SampleBatch(data) for agent, data in rollout.agents.items()})
        super().__init__(columns, env_steps=rollout.env_steps)
        self.rollout = rollout

    def agent_steps(self) -> int:
        """Return the number of decisions: active agents, summed over sessions and time."""
        return self.rollout.decisions


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
    for name in sorted({name for b in batches for name in b.rollout.metrics}):
        having = [b for b in batches if name in b.rollout.metrics]
        values = np.array([b.rollout.metrics[name] for b in having])
        if name == "episodes_ended":
            rollout.metrics[name] = float(values.sum())
            continue
        episodes = name.startswith("episode/")
        weights = [
            b.rollout.metrics["episodes_ended"] if episodes else b.env_steps() for b in having
        ]
        rollout.metrics[name] = float(np.average(values, weights=weights))
    return RolloutBatch(rollout)
