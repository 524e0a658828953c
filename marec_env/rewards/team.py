"""Objectives f_i and the team objective F of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from marec_env.errors import ConfigError, unknown_name
from marec_env.pipeline.component import Component
from marec_env.pipeline.own import checked
from marec_env.registry import callable_at
from marec_env.rewards.config import RewardConfig
from marec_env.rewards.outcome import Outcome
from marec_env.rewards.terms import TERMS

__all__ = ["TeamReward"]


class TeamReward:
    """The reward section at work for a list of components."""

    def __init__(self, config: RewardConfig, components: Sequence[Component]) -> None:
        """Args:
        config: the section ``rewards``.
        components: the team.

        Raises:
            ConfigError: a term or component is unknown.
        """
        self.config = config
        names = [component.name for component in components]
        for section, keys in (("objectives", config.objectives), ("weights", config.weights)):
            for name in keys:
                known = {*names, *RewardConfig().weights}
                if name not in known:
                    raise ConfigError(
                        f"rewards.{section}: {unknown_name('component', name, known)}"
                    )
        self._objectives: dict[str, Mapping[str, float]] = {
            # A copy, for read-only views of mappings can be neither copied nor pickled.
            component.agent: dict(config.objectives.get(component.name, component.objective))
            for component in components
        }
        self._weights = {
            component.agent: config.weights.get(component.name, 0.0) for component in components
        }
        for component in components:
            for name in self._objectives[component.agent]:
                callable_at(f"rewards.objectives.{component.name}", TERMS, name)
        for name in config.team:
            callable_at("rewards.team", TERMS, name)

    def objectives(self, outcome: Outcome) -> dict[str, Tensor]:
        """Return f_i per agent, float32 ``[B]`` in [0, 1]."""
        values = _Terms(outcome)
        return {
            agent: values.weighted(terms).clamp(0.0, 1.0)
            for agent, terms in self._objectives.items()
        }

    def team(self, outcome: Outcome, objectives: Mapping[str, Tensor]) -> Tensor:
        """Return F, float32 ``[B]``."""
        total = _Terms(outcome).weighted(self.config.team)
        for agent, weight in self._weights.items():
            if weight:
                total = total + weight * objectives[agent]
        return total

    def rewards(
        self,
        objectives: Mapping[str, Tensor],
        team: Tensor,
        counterfactual: Mapping[str, Tensor],
        bonus: Tensor,
    ) -> dict[str, Tensor]:
        """Return each agent's reward by the configured mode, float32 ``[B]``.

        Args:
            objectives: f_i per agent.
            team: F.
            counterfactual: mode difference only: per agent, F had it played its default; an agent
                that did not act is not in it and made no difference.
            bonus: shaping, added to all.
        """
        mode, mix = self.config.mode, self.config.mix
        if mode == "own":
            return {agent: own + bonus for agent, own in objectives.items()}
        if mode == "mix":
            return {
                agent: mix * own + (1.0 - mix) * team + bonus for agent, own in objectives.items()
            }
        if mode == "difference":
            return {agent: team - counterfactual.get(agent, team) + bonus for agent in objectives}
        return dict.fromkeys(objectives, team + bonus)


class _Terms:
    """Terms of one outcome, each computed once."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._values: dict[str, Tensor] = {}

    def weighted(self, terms: Mapping[str, float]) -> Tensor:
        total = torch.zeros_like(self._outcome.feedback.engagement)
        for name, weight in terms.items():
            if name not in self._values:
                value = TERMS.get(name)(self._outcome)
                self._values[name] = checked("reward term", name, value, len(total))
            total = total + weight * self._values[name]
        return total
