"""A trained team opened up: inputs with memory, decisions as differentiable numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from agents.learners.distributions import ActionDistribution, distribution_for
from agents.learners.policy import TrainedPolicy
from marec_env.errors import ConfigError
from marec_env.vector import Action

__all__ = ["MaskedTeam", "OpenTeam", "by_part", "expected_decisions"]


def by_part(
    space: spaces.Space[Any],
    inputs: Tensor,
    function: Callable[[spaces.Space[Any], Tensor], Tensor],
) -> Tensor:
    """Return a function of a space and its distribution's parameters ``[n, num_inputs]``; of a
    Tuple, of each part and its share of them, joined.
    """
    if not isinstance(space, spaces.Tuple):
        return function(space, inputs)
    pieces = torch.split(inputs, [distribution_for(part).num_inputs for part in space], dim=1)
    return torch.cat([function(*pair) for pair in zip(space, pieces, strict=True)], dim=1)


def expected_decisions(space: spaces.Space[Any], inputs: Tensor) -> Tensor:
    """Return each sub-action's mean before clipping to its bounds, ``[n, width]``.

    Box: the Gaussian's means, in units in which bounds are -1 and 1. Discrete parts: the expected
    choice ``sum_j j p_j``.

    Args:
        space: the action space of one session.
        inputs: parameters of the actor's distribution, ``[n, num_inputs]``.

    Raises:
        ConfigError: the space is of another kind.
    """
    return by_part(space, inputs, _means)


def _means(space: spaces.Space[Any], inputs: Tensor) -> Tensor:
    if isinstance(space, spaces.Box):
        return inputs[:, : int(space.low.size)]
    if isinstance(space, spaces.Discrete):
        sizes = [int(space.n)]
    elif isinstance(space, spaces.MultiDiscrete):
        sizes = [int(n) for n in space.nvec.reshape(-1)]
    elif isinstance(space, spaces.MultiBinary):
        sizes = [2] * int(space.n)
    else:
        raise ConfigError(f"cannot explain decisions in {space}; known: Box, discrete kinds, Tuple")
    means = [
        torch.softmax(table, dim=1)
        @ torch.arange(table.shape[1], dtype=inputs.dtype, device=inputs.device)
        for table in torch.split(inputs, sizes, dim=1)
    ]
    return torch.stack(means, dim=1)


class OpenTeam:
    """The actors of a policy, without a state of their own: recurrent memory is handed in and out.

    An agent's *input* is its observation followed by its recurrent memory, ``[n, d + h]``.
    """

    def __init__(self, policy: TrainedPolicy) -> None:
        self.policy = policy
        self.agents = policy.team.agents

    def distribution(self, agent: str) -> ActionDistribution:
        """Return the family of an agent's action distributions."""
        return self.policy.actors[self.policy.team.actor_of(agent)[0]].distribution

    def memory_size(self, agent: str) -> int:
        """Return the numbers of an agent's recurrent state; 0 for none."""
        return self.policy.actors[self.policy.team.actor_of(agent)[0]].memory_size

    def join(self, agent: str, observation: Tensor, memory: Mapping[str, Tensor]) -> Tensor:
        """Return an agent's input; a memory that is missing is empty."""
        size = self.memory_size(agent)
        if not size:
            return observation
        known = memory.get(agent)
        if known is None:
            known = observation.new_zeros(observation.shape[0], size)
        return torch.cat([observation, known], dim=1)

    def forward(self, agent: str, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return distribution parameters ``[n, num_inputs]`` and the next memory of inputs."""
        name, index = self.policy.team.actor_of(agent)
        actor = self.policy.actors[name]
        width = inputs.shape[1] - actor.memory_size
        memory = inputs[:, width:] if actor.memory_size else None
        found, after = actor(inputs[:, :width], memory, index)
        return found, after

    def decisions(self, agent: str, inputs: Tensor) -> Tensor:
        """Return the expected decisions of inputs, ``[n, width]``, differentiable."""
        space = self.policy.team.action_spaces[agent]
        return expected_decisions(space, self.forward(agent, inputs)[0])

    def decider(self, agent: str) -> Callable[[Tensor], Tensor]:
        """Return :meth:`decisions` of one agent."""
        return lambda inputs: self.decisions(agent, inputs)

    @torch.no_grad()
    def act(self, agent: str, inputs: Tensor) -> tuple[Action, Tensor | None]:
        """Return the most probable action, as evaluation plays, and the next memory."""
        distribution = self.distribution(agent)
        parameters, memory = self.forward(agent, inputs)
        return distribution.to_env(distribution.mode(parameters)), memory


class MaskedTeam:
    """The team, but one component has a part of its input replaced by fixed values.

    A :class:`marec_env.evaluation.policies.TeamPolicy`.
    """

    def __init__(
        self, team: OpenTeam, agent: str = "", columns: slice = slice(0), fill: Tensor | None = None
    ) -> None:
        """Args:
        team: the actors.
        agent: whose input is masked; by default nobody's.
        columns: of the input.
        fill: float32, one value for each of the columns.
        """
        self.team, self.agent, self.columns, self.fill = team, agent, columns, fill
        self.memory: dict[str, Tensor] = {}
        self.seen: dict[str, Tensor] = {}
        """The inputs of the latest request, as masked."""

    def reset(self) -> None:
        """Forget recurrent state."""
        self.memory = {}

    def act(self, observations: Mapping[str, Tensor]) -> dict[str, Action]:
        """Return the most probable actions given what is left of the input."""
        actions: dict[str, Action] = {}
        for agent, observation in observations.items():
            inputs = self.team.join(agent, observation, self.memory)
            if agent == self.agent and self.fill is not None:
                inputs = inputs.clone()
                inputs[:, self.columns] = self.fill
            self.seen[agent] = inputs
            actions[agent], memory = self.team.act(agent, inputs)
            if memory is not None:
                self.memory[agent] = memory
        return actions
