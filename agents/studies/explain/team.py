"""A trained team opened up: inputs by name, decisions as numbers with causes, masked replays.

Causes are by integrated gradients: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep
Networks" (ICML 2017), equation 1: along the straight line from a baseline ``x'`` to the input
``x``, the gradient of each output is averaged and multiplied by ``x - x'``. The attributions of an
output add up to its change from ``x'`` to ``x`` (completeness), up to the error of the quadrature.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.learners.networks import Actor
from agents.learners.policy import TrainedPolicy
from marec_env.evaluation.rollout import play_request
from marec_env.simulator import Simulator
from marec_env.vector import Action

STEPS = 200  # nodes of Gauss-Legendre quadrature: hidden layers bend the path, see the gap
_ROWS = 1 << 15  # points on paths evaluated at once, to bound memory
MEMORY = "memory"
"""The group of a recurrent actor's own state."""


class OpenTeam:
    """The actors of a policy, without a state of their own: recurrent memory is handed in and out.

    An agent's *input* is its observation followed by its recurrent memory, ``[n, d + h]``.
    """

    def __init__(self, policy: TrainedPolicy) -> None:
        self.policy = policy
        self.agents = policy.team.agents

    def actor(self, agent: str) -> Actor:
        """Return the network that plays an agent."""
        return self.policy.actors[self.policy.team.actor_of(agent)[0]]

    def join(self, agent: str, observation: Tensor, memory: Mapping[str, Tensor]) -> Tensor:
        """Return an agent's input; a memory that is missing is empty."""
        size = self.actor(agent).memory_size
        if not size:
            return observation
        known = memory.get(agent)
        if known is None:
            known = observation.new_zeros(observation.shape[0], size)
        return torch.cat([observation, known], dim=1)

    def forward(self, agent: str, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return distribution parameters ``[n, num_inputs]`` and the next memory of inputs."""
        name, index = self.policy.team.actor_of(agent)
        actor = self.policy.actor(name, inputs.device)
        width = inputs.shape[1] - actor.memory_size
        memory = inputs[:, width:] if actor.memory_size else None
        found, after = actor(inputs[:, :width], memory, index)
        return found, after

    def decisions(self, agent: str, inputs: Tensor) -> Tensor:
        """Return the expected decisions of inputs, ``[n, width]``, differentiable."""
        return self.actor(agent).distribution.expected(self.forward(agent, inputs)[0])


class MaskedTeam:
    """The team playing its most probable actions, but one component has a part of its input
    replaced by fixed values; a :class:`marec_env.evaluation.policies.TeamPolicy`.
    """

    def __init__(
        self, team: OpenTeam, agent: str = "", columns: slice = slice(0), fill: Tensor | None = None
    ) -> None:
        """Mask an agent's columns (by default nobody's) by ``fill``, float32, a value for each."""
        self.team, self.agent, self.columns, self.fill = team, agent, columns, fill
        self.memory: dict[str, Tensor] = {}
        self.seen: dict[str, Tensor] = {}
        """The inputs of the latest request, as masked."""
        self.parameters: dict[str, Tensor] = {}
        """Of the distributions that its actions were of."""

    def reset(self) -> None:
        """Forget recurrent state."""
        self.memory = {}

    @torch.no_grad()
    def act(self, observations: Mapping[str, Tensor]) -> dict[str, Action]:
        """Return the most probable actions given what is left of the input."""
        actions: dict[str, Action] = {}
        for agent, observation in observations.items():
            inputs = self.team.join(agent, observation, self.memory)
            if agent == self.agent and self.fill is not None:
                inputs = inputs.clone()
                inputs[:, self.columns] = self.fill
            self.seen[agent] = inputs
            self.parameters[agent], memory = self.team.forward(agent, inputs)
            flat = self.choose(agent, self.parameters[agent])
            actions[agent] = self.team.actor(agent).distribution.to_env(flat)
            if memory is not None:
                self.memory[agent] = memory
        return actions

    def choose(self, agent: str, parameters: Tensor) -> Tensor:
        """Return an agent's flat actions."""
        return self.team.actor(agent).distribution.mode(parameters)


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that a cohort of sessions was answered."""

    number: int
    alive: Tensor
    """Bool ``[B]``: which sessions had not ended before."""
    slate: Tensor
    """Int64 ``[B, K]``."""
    state: dict[str, Any]
    """Of the simulator before the answer; empty where it is not kept."""
    memory: dict[str, Tensor]

    def again(self, simulator: Simulator, team: MaskedTeam) -> Tensor:
        """Return the slates ``[B, K]`` by which another team answers the same request."""
        simulator.load_state_dict(self.state)
        team.memory = dict(self.memory)
        play_request(simulator, team)
        assert simulator.last is not None
        return simulator.last.slate


def answered_requests(
    simulator: Simulator,
    team: MaskedTeam,
    sessions: Tensor,
    seed: int,
    kept: Callable[[int], bool],
) -> Iterator[Answered]:
    """Play sessions, int64 ``[B]``, to their ends and yield each request once it is answered.

    The simulator is of as many sessions, without autoreset; ``kept`` says of a request's number
    whether its state is kept for answering it again.
    """
    simulator.begin(sessions, seed)
    alive = torch.ones(simulator.num_envs, dtype=torch.bool, device=simulator.device)
    number = 0
    while bool(alive.any()):
        state = simulator.state_dict() if kept(number) else {}
        memory = dict(team.memory)
        step = play_request(simulator, team)
        assert simulator.last is not None
        yield Answered(number, alive, simulator.last.slate.clone(), state, memory)
        alive = alive & ~(step.terminated | step.truncated)
        number += 1


def integrated_gradients(
    function: Callable[[Tensor], Tensor], inputs: Tensor, baseline: Tensor, steps: int = STEPS
) -> Tensor:
    """Return the attribution of every output to every input, float32 ``[n, m, d]``.

    Args:
        function: differentiable, ``[rows, d]`` to ``[rows, m]``, each row by itself.
        inputs: ``[n, d]``.
        baseline: ``[d]`` or ``[n, d]``: the input that stands for knowing nothing.
        steps: nodes of the quadrature; piecewise linear functions need many for exactness.
    """
    places, weights = np.polynomial.legendre.leggauss(steps)
    node = torch.as_tensor((places + 1.0) / 2.0, dtype=inputs.dtype, device=inputs.device)
    weight = torch.as_tensor(weights / 2.0, dtype=inputs.dtype, device=inputs.device)
    size = max(1, _ROWS // steps)
    pairs = zip(
        torch.split(inputs, size), torch.split(baseline.expand_as(inputs), size), strict=True
    )
    parts = []
    for end, start in pairs:
        change = end - start
        path = start.unsqueeze(1) + node.view(1, -1, 1) * change.unsqueeze(1)
        points = path.flatten(0, 1).detach().requires_grad_(True)
        gradients = [
            torch.autograd.grad(output.sum(), points, retain_graph=True, materialize_grads=True)[0]
            for output in function(points).unbind(dim=1)
        ]
        means = [torch.einsum("rsd,s->rd", g.view(path.shape), weight) for g in gradients]
        parts.append(torch.stack([mean * change for mean in means], dim=1))
    return torch.cat(parts)


@torch.no_grad()
def completeness_gap(
    function: Callable[[Tensor], Tensor], inputs: Tensor, baseline: Tensor, attributions: Tensor
) -> float:
    """Return the largest difference between an output's change and its attributions' sum."""
    change = function(inputs) - function(baseline.expand_as(inputs))
    return float((change - attributions.sum(dim=2)).abs().max())


def attribution_by_group(attributions: Tensor, groups: Mapping[str, slice]) -> Tensor:
    """Add up ``[n, m, d]`` attributions within groups: ``[n, m, groups]``."""
    return torch.stack([attributions[:, :, where].sum(dim=2) for where in groups.values()], dim=2)


def input_groups(simulator: Simulator, agent: str, memory: int) -> dict[str, slice]:
    """Return the columns that make up an agent's input by name, in order and without gaps.

    There is a group for each observation field, one for each component whose messages are heard,
    and one for a recurrent actor's memory, so many numbers that follow the observation. A component
    that makes its observation in a way of its own has one group, ``observation``.
    """
    pipeline, messages = simulator.pipeline, simulator.config.pipeline.messages
    agents = list(pipeline.agents)
    widths = {name: int(value.shape[1]) for name, value in pipeline.view(agent).items()}
    if messages.kind != "none":
        told = agents[: agents.index(agent)] if messages.topology == "downstream" else agents
        widths |= {f"message from {other}": messages.dim for other in told if other != agent}
    total = int(simulator.observation_spaces[agent].shape[0])
    if sum(widths.values()) != total:
        widths = {"observation": total}
    if memory:
        widths[MEMORY] = memory
    ends = itertools.accumulate(widths.values())
    return {name: slice(end - widths[name], end) for name, end in zip(widths, ends, strict=True)}
