"""Who is paid what: objectives f_i, the team objective F, reward modes, and shaping.

Potential-based shaping, r' = r + gamma Phi(s') - Phi(s) with Phi = 0 where the episode has
terminated, leaves every optimal policy optimal (Ng, Harada and Russell, ICML 1999). A truncated
episode keeps Phi(s').
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from marec_env.errors import ConfigError, unknown_name
from marec_env.pipeline.component import Component
from marec_env.pipeline.memory import SessionMemory
from marec_env.registry import Registry, callable_at, numbers
from marec_env.rewards.config import RewardConfig, ShapingConfig
from marec_env.rewards.terms import TERMS, Outcome, Term

Potential = Callable[[SessionMemory], Tensor]
POTENTIALS: Registry[Potential] = Registry("shaping potential")


def _one_number(what: str, found: object, of: Outcome | SessionMemory) -> Tensor:
    return numbers(what, found, of.num_sessions)


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
        known = {*(component.name for component in components), *RewardConfig().weights}
        for section, keys in (("objectives", config.objectives), ("weights", config.weights)):
            for name in set(keys) - known:
                raise ConfigError(f"rewards.{section}: {unknown_name('component', name, known)}")
        self._objectives: dict[str, Mapping[str, float]] = {
            # A copy, for read-only views of mappings can be neither copied nor pickled.
            component.agent: dict(config.objectives.get(component.name, component.objective))
            for component in components
        }
        self._weights = {
            component.agent: config.weights.get(component.name, 0.0) for component in components
        }
        self._terms: dict[str, Term] = {}
        places = {f"objectives.{c.name}": self._objectives[c.agent] for c in components}
        for place, terms in {**places, "team": config.team}.items():
            for name in terms:
                self._terms[name] = callable_at(f"rewards.{place}", TERMS, name, _one_number)

    def score(self, outcome: Outcome) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
        """Return f_i per agent, in [0, 1], F, and each configured term: float32 ``[B]`` each."""
        values: dict[str, Tensor] = {}  # each term once, whoever is paid by it

        def weighted(terms: Mapping[str, float]) -> Tensor:
            total = torch.zeros_like(outcome.feedback.engagement)
            for name, weight in terms.items():
                if name not in values:
                    values[name] = self._terms[name](outcome)
                total = total + weight * values[name]
            return total

        objectives = {
            agent: weighted(terms).clamp(0.0, 1.0) for agent, terms in self._objectives.items()
        }
        team = weighted(self.config.team)
        for agent, weight in self._weights.items():
            if weight:
                team = team + weight * objectives[agent]
        return objectives, team, values

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


@POTENTIALS.register("click_rate")
def click_rate(memory: SessionMemory) -> Tensor:
    """The slow click rate: sessions in which the user clicks go on."""
    return memory.slow_rate


@POTENTIALS.register("topic_balance")
def topic_balance(memory: SessionMemory) -> Tensor:
    """1 less the largest topic exposure: room left before the user tires of a topic."""
    return 1.0 - memory.exposure.amax(1)


class Shaping:
    """The configured shaping terms, added up."""

    def __init__(self, configs: Sequence[ShapingConfig]) -> None:
        key = "rewards.shaping.potential"
        self._parts = [
            (callable_at(key, POTENTIALS, c.potential, _one_number), c.weight, c.gamma)
            for c in configs
        ]

    def before(self, memory: SessionMemory) -> list[Tensor]:
        """Return each potential in the state before the request."""
        return [potential(memory).clone() for potential, _, _ in self._parts]

    def bonus(self, before: list[Tensor], memory: SessionMemory, terminated: Tensor) -> Tensor:
        """Return what shaping adds to every reward, float32 ``[B]``.

        Args:
            before: what :meth:`before` returned.
            memory: after the request, before any reset.
            terminated: bool ``[B]``.
        """
        total = torch.zeros(memory.num_sessions, device=memory.device)
        for (potential, weight, gamma), start in zip(self._parts, before, strict=True):
            after = torch.where(terminated, 0.0, potential(memory))
            total = total + weight * (gamma * after - start)
        return total
