"""RLlib modules around the plain networks, and the specification of a whole team."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from agents.learners.config import HAPPOConfig, IPPOConfig, MAPPOConfig
from agents.learners.networks import Critic, ValueNormaliser
from agents.learners.team import TeamSpec

__all__ = [
    "INPUTS",
    "VALUES",
    "ActorModule",
    "CriticModule",
    "CriticPlan",
    "critic_plans",
    "multi_module_spec",
]

INPUTS = "distribution_inputs"
VALUES = "values"

_PROBED = 64
"""Rows (or sequences) that are looked at."""

FamilyConfig = MAPPOConfig | IPPOConfig | HAPPOConfig


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


def critic_plans(config: FamilyConfig, team: TeamSpec) -> dict[str, CriticPlan]:
    """Return the critics of an algorithm by module name."""
    num_state = int(team.state_space.shape[0])
    if config.critic_input == "state":
        heads = len(team.agents) if config.reward == "own" else 1
        return {"critic": CriticPlan(team.agents, "state", heads, num_state)}
    plans = {}
    for actor, agents in team.actors.items():
        size = int(team.observation_spaces[agents[0]].shape[0])
        if config.critic_input == "state_and_observation":
            size += num_state
        plans[f"critic_{actor}"] = CriticPlan(agents, config.critic_input, 1, size)
    return plans


class _SettledModule(TorchRLModule):
    """Skips the walk over sub-modules by which RLlib sets training mode before every pass."""

    def train(self, mode: bool = True) -> _SettledModule:
        """Set training mode, unless it is set already."""
        return self if self.training == mode else super().train(mode)


class ActorModule(_SettledModule):
    """An actor as an RLlib module; ``model_config`` holds ``team``, ``config`` and ``actor``."""

    def setup(self) -> None:
        """Build the network."""
        model = self.model_config
        self.net = model["team"].build_actor(model["config"], model["actor"])

    def _forward(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """Return distribution inputs of flat decisions, or of sequences given a ``memory``."""
        agent_id = batch.get("agent_id")
        if "memory" in batch:
            return {
                INPUTS: self.net.sequence(
                    batch["observations"], batch["starts"], batch["memory"], agent_id
                )
            }
        return {INPUTS: self.net.flat(batch["observations"], agent_id)}

    def gives_finite(self, batch: Mapping[str, Any]) -> bool:
        """Return whether draws on the first rows, their probabilities and entropies are finite."""
        batch = {key: column[:_PROBED] for key, column in batch.items()}
        distribution, inputs = self.net.distribution, self._forward(batch)[INPUTS]
        mask = batch.get("masks")
        quantiles = inputs.new_full((*inputs.shape[:-1], distribution.num_uniforms), 0.3)
        drawn = distribution.sample(inputs, quantiles, mask)
        log_p, entropy = distribution.evaluate(inputs, drawn, mask)
        found = inputs.sum(-1) + drawn.sum(-1) + log_p + entropy
        return bool(torch.isfinite(found[batch["weights"] > 0]).all())


class CriticModule(_SettledModule):
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
        if "memory" in batch:
            return {VALUES: self.net.sequence(batch["inputs"], batch["starts"], batch["memory"])[0]}
        return {VALUES: self.net(batch["inputs"])[0]}

    def gives_finite(self, batch: Mapping[str, Any]) -> bool:
        """Return whether values of the first rows are finite."""
        batch = {key: column[:_PROBED] for key, column in batch.items()}
        values = self._forward(batch)[VALUES]
        return bool(torch.isfinite(values[batch["weights"] > 0]).all())

    def denormalise(self, values: Tensor) -> Tensor:
        """Return values in units of reward."""
        return self.value_norm.denormalise(values) if self.value_norm is not None else values

    def normalise(self, values: Tensor) -> Tensor:
        """Return values in the critic's units."""
        return self.value_norm.normalise(values) if self.value_norm is not None else values


def multi_module_spec(config: FamilyConfig, team: TeamSpec) -> MultiRLModuleSpec:
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
        box = spaces.Box(-np.inf, np.inf, (plan.num_inputs,), np.float32)
        specs[name] = RLModuleSpec(
            module_class=CriticModule,
            observation_space=box,
            action_space=spaces.Box(-np.inf, np.inf, (plan.heads,), np.float32),
            model_config={"plan": plan, "config": config},
            learner_only=True,
        )
    return MultiRLModuleSpec(rl_module_specs=specs)
