"""Affine layers for inference, with the quickest matrix product the machine has.

On CPU, oneDNN with weights laid out once and GELU or the residual fused into the product. It is the
path that torch.compile's CPU backend takes, used here without the compiler; on AMD processors its
float32 product runs at more than twice the speed of ``torch.nn.functional.linear``, whose library
(MKL) does not use their 512-bit units. Where oneDNN is absent or wrong, and on CUDA, plain torch.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Linear", "PlainLinear", "PrepackedLinear", "linear"]

# The fused result may differ from the plain one by rounding only: a few units in the last place of
# sums over the layer's width, relative to the largest entry.
_AGREEMENT = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
_PROBE_ROWS = 8


class Linear(Protocol):
    """``x W' + b`` and the two forms of it that BERT needs; ``x`` is ``[T, in]``."""

    def plain(self, x: Tensor) -> Tensor:
        """Return ``x W' + b``, ``[T, out]``."""

    def gelu(self, x: Tensor) -> Tensor:
        """Return ``gelu(x W' + b)`` with the exact (erf) GELU."""

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return ``x W' + b + residual``."""


class PlainLinear:
    """By ``torch.nn.functional``."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """Args:
        weight: ``[out, in]``.
        bias: ``[out]``.
        """
        self._weight, self._bias = weight, bias

    def plain(self, x: Tensor) -> Tensor:
        """See :class:`Linear`."""
        return functional.linear(x, self._weight, self._bias)

    def gelu(self, x: Tensor) -> Tensor:
        """See :class:`Linear`."""
        return functional.gelu(self.plain(x))

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """See :class:`Linear`."""
        return self.plain(x).add_(residual)


class PrepackedLinear:
    """By oneDNN, with the weight in its own layout."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """Args:
        weight: ``[out, in]`` on the CPU.
        bias: ``[out]``.

        Raises:
            RuntimeError, AttributeError: this torch has no such operators.
        """
        # operators of torch's own compiler: private, so `linear` checks them before use
        self._apply: Any = torch.ops.mkldnn._linear_pointwise
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
        self._bias = bias

    def plain(self, x: Tensor) -> Tensor:
        """See :class:`Linear`."""
        result: Tensor = self._apply(x, self._packed, self._bias, "none", [], "")
        return result

    def gelu(self, x: Tensor) -> Tensor:
        """See :class:`Linear`."""
        result: Tensor = self._apply(x, self._packed, self._bias, "gelu", [], "none")
        return result

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """See :class:`Linear`."""
        result: Tensor = self._apply.binary(x, residual, self._packed, self._bias, "add")
        return result


def linear(weight: Tensor, bias: Tensor) -> Linear:
    """Return the prepacked layer if it works here and agrees with the plain one, else the plain."""
    plain = PlainLinear(weight, bias)
    if weight.device.type != "cpu" or not torch._C._has_mkldnn:
        return plain
    try:
        packed = PrepackedLinear(weight, bias)
        return packed if _agree(packed, plain, weight) else plain
    except (RuntimeError, AttributeError, NotImplementedError):
        return plain


@torch.inference_mode()
def _agree(packed: Linear, plain: Linear, weight: Tensor) -> bool:
    """Return whether both layers give the same on a fixed input, in all three forms."""
    rows = torch.arange(_PROBE_ROWS * weight.shape[1], dtype=torch.float32)
    x = torch.sin(rows).view(_PROBE_ROWS, -1).to(weight.dtype)
    residual = torch.cos(torch.arange(_PROBE_ROWS * weight.shape[0], dtype=torch.float32))
    residual = residual.view(_PROBE_ROWS, -1).to(weight.dtype)
    pairs = (
        (packed.plain(x), plain.plain(x)),
        (packed.gelu(x), plain.gelu(x)),
        (packed.plus(x, residual), plain.plus(x, residual)),
    )
    tolerance = _AGREEMENT[weight.dtype]
    return all(
        bool((one - other).abs().max() <= tolerance * other.abs().max().clamp(min=1.0))
        for one, other in pairs
    )
