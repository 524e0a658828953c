"""Integrated gradients: how much of an output's change is due to each input.

Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks" (ICML 2017), equation 1: along
the straight line from a baseline ``x'`` to the input ``x``, the gradient of each output is averaged
and multiplied by ``x - x'``. The attributions of an output add up to its change from ``x'`` to
``x`` (completeness), up to the error of the quadrature.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

__all__ = ["DEFAULT_STEPS", "completeness_gap", "integrated_gradients"]

DEFAULT_STEPS = 50  # nodes of Gauss-Legendre quadrature, as in captum
_ROWS = 1 << 15  # points on paths evaluated at once, to bound memory


def integrated_gradients(
    function: Callable[[Tensor], Tensor],
    inputs: Tensor,
    baseline: Tensor,
    steps: int = DEFAULT_STEPS,
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
