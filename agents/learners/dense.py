"""Stacks of affine layers for training on the CPU, by oneDNN where torch's default is slower.

On AMD processors torch's float32 products (MKL) do not use the 512-bit units; oneDNN's do, and run
at more than twice the speed. Large batches go through in blocks of rows that stay in the
processor's cache, forward and backward. Results differ from torch's by rounding only.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = ["affine_stack"]

_MIN_ROWS = 1024
"""Below, the overhead of more calls outweighs the quicker product."""
_BLOCK = 2048
"""Rows at once: 0.5 MiB a layer of 64 units; 512 to 8192 were slower on a 1 MiB cache."""
_AGREEMENT = 1e-4  # of a probe's largest entry; rounding stays two orders below
_PROBE = (2500, (24, 16, 8))  # rows (one block and a part), sizes of the layers

Weights = Sequence[tuple[Tensor, Tensor]]


def affine_stack(x: Tensor, weights: Weights, relu_last: bool) -> Tensor:
    """Return ``x`` after affine layers with rectifiers between them.

    Args:
        x: ``[..., in]``.
        weights: of each layer ``W [out, in]`` and ``b [out]``.
        relu_last: whether the last layer's negative results become 0 too.
    """
    rows = x.numel() // max(1, x.shape[-1])
    if rows < _MIN_ROWS or x.device.type != "cpu" or x.dtype != torch.float32 or not _usable():
        return _plain(x, weights, relu_last)
    flat = [tensor for layer in weights for tensor in layer]
    result: Tensor = _Stack.apply(x.reshape(rows, -1), relu_last, *flat)  # type: ignore[no-untyped-call]
    return result.view(*x.shape[:-1], -1)


def _plain(x: Tensor, weights: Weights, relu_last: bool) -> Tensor:
    for index, (weight, bias) in enumerate(weights):
        x = functional.linear(x, weight, bias)
        if relu_last or index < len(weights) - 1:
            x = x.relu()
    return x


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Return ``left right'``, by an operator of torch's own compiler.

    It is private to torch, so :func:`_usable` checks it before use.
    """
    result: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
    return result


class _Stack(torch.autograd.Function):
    """The layers on columns of features, ``[units, rows]``: no product then needs a transposition,
    which would cost as much as the product.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, relu_last: bool, *weights: Tensor) -> Tensor:
        """Args:
        ctx: of autograd.
        x: ``[rows, in]``.
        relu_last: see :func:`affine_stack`.
        weights: W, b, W, b, ...

        Returns:
            ``[rows, out]``.
        """
        depth = len(weights) // 2
        hidden: list[Tensor] = []
        outputs: list[Tensor] = []
        for block in torch.split(x, _BLOCK):
            rows = block
            for layer in range(depth):
                weight, bias = weights[2 * layer], weights[2 * layer + 1]
                columns = _product(weight, rows).add_(bias.unsqueeze(-1))
                if relu_last or layer < depth - 1:
                    columns.relu_()
                hidden.append(columns)
                rows = columns.t()
            outputs.append(hidden.pop() if not relu_last else columns)
        ctx.relu_last, ctx.depth = relu_last, depth
        ctx.save_for_backward(x, *weights, *hidden)
        return torch.cat(outputs, dim=1).t().contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients by x (where needed) and by each weight and bias."""
        x, *rest = ctx.saved_tensors
        weights, hidden = rest[: 2 * ctx.depth], rest[2 * ctx.depth :]
        kept = ctx.depth if ctx.relu_last else ctx.depth - 1
        transposed = [weight.t().contiguous() for weight in weights[::2]]
        totals: list[Tensor] = []
        of_inputs: list[Tensor] = []
        for number, (block, rows) in enumerate(
            zip(torch.split(x, _BLOCK), torch.split(gradient, _BLOCK), strict=True)
        ):
            g = rows.t().contiguous()
            results = hidden[number * kept : (number + 1) * kept]
            pieces: list[Tensor] = []
            for layer in range(ctx.depth - 1, -1, -1):
                if layer < kept:
                    g = torch.ops.aten.threshold_backward(g, results[layer], 0)
                before = results[layer - 1] if layer else block.t()
                pieces += [g.sum(dim=1), _product(g, before)]
                if layer or ctx.needs_input_grad[0]:
                    g = _product(transposed[layer], g.t())
            if ctx.needs_input_grad[0]:
                of_inputs.append(g.t())
            if totals:
                torch._foreach_add_(totals, pieces)
            else:
                totals = pieces
        of_x = torch.cat(of_inputs) if of_inputs else None
        return of_x, None, *reversed(totals)


@lru_cache(maxsize=1)
def _usable() -> bool:
    """Return whether oneDNN is there and agrees with torch, forward and backward."""
    if not torch._C._has_mkldnn:
        return False
    try:
        pairs = [(_probe(relu, quick=True), _probe(relu, quick=False)) for relu in (False, True)]
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return all(
        bool((one - other).abs().max() <= _AGREEMENT * other.abs().max())
        for quick, plain in pairs
        for one, other in zip(quick, plain, strict=True)
    )


@torch.enable_grad()
def _probe(relu_last: bool, *, quick: bool) -> list[Tensor]:
    """Return the result on fixed arguments, and the gradients of its square."""
    rows, sizes = _PROBE
    arguments = [torch.sin(torch.arange(rows * sizes[0], dtype=torch.float32)).view(rows, -1)]
    for inputs, outputs in itertools.pairwise(sizes):
        weight = torch.cos(torch.arange(outputs * inputs, dtype=torch.float32))
        arguments += [weight.view(outputs, inputs), torch.linspace(-1.0, 1.0, outputs)]
    for argument in arguments:
        argument.requires_grad_()
    x, *flat = arguments
    if quick:
        result: Tensor = _Stack.apply(x, relu_last, *flat)  # type: ignore[no-untyped-call]
    else:
        result = _plain(x, list(zip(flat[::2], flat[1::2], strict=True)), relu_last)
    return [result.detach(), *torch.autograd.grad(result.square().sum(), arguments)]
