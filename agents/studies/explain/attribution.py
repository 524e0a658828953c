"""How much of a decision is due to each named part of a component's input.

Integrated gradients: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks" (ICML
2017), equation 1: along the straight line from a baseline ``x'`` to the input ``x``, the gradient
of each output is averaged and multiplied by ``x - x'``. The attributions of an output add up to its
change from ``x'`` to ``x`` (completeness), up to the error of the quadrature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from marec_env.simulator import Simulator

__all__ = [
    "STEPS",
    "attribution_by_group",
    "completeness_gap",
    "decision_names",
    "input_groups",
    "integrated_gradients",
]

STEPS = 200  # nodes of Gauss-Legendre quadrature: hidden layers bend the path, see the gap
_ROWS = 1 << 15  # points on paths evaluated at once, to bound memory
MEMORY = "memory"
"""The group of a recurrent actor's own state."""


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
    start = baseline.expand_as(inputs)
    parts = [
        _attributions(function, x, s, node, weight)
        for x, s in zip(torch.split(inputs, size), torch.split(start, size), strict=True)
    ]
    return torch.cat(parts)


def _attributions(
    function: Callable[[Tensor], Tensor],
    inputs: Tensor,
    start: Tensor,
    node: Tensor,
    weight: Tensor,
) -> Tensor:
    rows, width = inputs.shape
    change = inputs - start
    path = start.unsqueeze(1) + node.view(1, -1, 1) * change.unsqueeze(1)
    points = path.reshape(-1, width).detach().requires_grad_(True)
    outputs = function(points)
    found = []
    for output in outputs.unbind(dim=1):
        (gradient,) = torch.autograd.grad(
            output.sum(), points, retain_graph=True, materialize_grads=True
        )
        mean = torch.einsum("rsd,s->rd", gradient.view(rows, -1, width), weight)
        found.append(mean * change)
    return torch.stack(found, dim=1)


@torch.no_grad()
def completeness_gap(
    function: Callable[[Tensor], Tensor], inputs: Tensor, baseline: Tensor, attributions: Tensor
) -> float:
    """Return the largest difference between an output's change and its attributions' sum.

    Args: as of :func:`integrated_gradients`, and what it returned.
    """
    change = function(inputs) - function(baseline.expand_as(inputs))
    return float((change - attributions.sum(dim=2)).abs().max())


def attribution_by_group(attributions: Tensor, groups: Mapping[str, slice]) -> Tensor:
    """Add up ``[n, m, d]`` attributions within groups: ``[n, m, groups]``."""
    return torch.stack([attributions[:, :, where].sum(dim=2) for where in groups.values()], dim=2)


def input_groups(simulator: Simulator, agent: str, memory: int) -> dict[str, slice]:
    """Return the columns that make up an agent's input by name, in order and without gaps.

    There is a group for each observation field, one for each component whose messages are heard,
    and one for a recurrent actor's memory. A component that makes its observation in a way of its
    own has one group, ``observation``.

    Args:
        simulator: of the environment.
        agent: whose input.
        memory: numbers of the actor's recurrent state, which follow the observation.
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
    groups, first = {}, 0
    for name, width in widths.items():
        groups[name] = slice(first, first + width)
        first += width
    return groups


def decision_names(simulator: Simulator, agent: str, count: int) -> tuple[str, ...]:
    """Return a name for each number of an agent's action.

    Components other than the built-in four, and numbers beyond a component's own (learned
    messages), are numbered.
    """
    pipeline = simulator.pipeline
    component = pipeline.components[pipeline.agents.index(agent)]
    config = component.config
    names = {
        "profile": (
            *(f"half-life {life:g}" for life in config.half_lives),
            "negative feedback",
            "population prior",
        ),
        "recall": tuple(f"quota of {channel}" for channel in config.recall.channels),
        "feature": tuple(f"block {block}" for block in config.blocks),
        "ranking": (
            *(f"weight of {block}" for block in config.blocks),
            "diversity",
            "temperature",
        ),
    }.get(component.name, ())
    if len(names) != sum(component.action_space.shape or ()):
        names = ()
    return (*names[:count], *(f"decision {k}" for k in range(len(names), count)))
