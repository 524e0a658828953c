"""Attention inside each text of a packed batch.

On CPU, texts of equal length form dense blocks. Which kernel is quickest there was measured with
``benchmarks/embeddings.py attention``: the fused kernel in float32, except for very short texts;
two batched products in bfloat16, with the softmax written out where rows are not whole vectors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from marec_env.embeddings.tokens import PackedBatch

__all__ = ["Attend", "grouped_attention", "varlen_attention"]

Attend = Callable[[Tensor], Tensor]
"""Maps queries, keys and values ``[T, 3 D]`` to mixed values ``[T, D]``."""

_FUSED_FROM = {torch.float32: 17, torch.bfloat16: 1 << 30}  # tokens from which it is the quicker
_BLOCK_SCORES = 1 << 20  # scores at a time, so that they stay in the processor's cache
_VECTOR = 16  # 32-bit lanes of a 512-bit register; softmax is slow on rows that leave a rest
# exp of +-60 and sums of it are far inside float32, so scores within it need no shift.
_SAFE_SCORE = 60.0


def grouped_attention(batch: PackedBatch, heads: int) -> Attend:
    """Return attention over runs of texts of equal length, for the CPU."""
    groups = batch.groups()

    def attend(qkv: Tensor) -> Tensor:
        out = qkv.new_empty(qkv.shape[0], qkv.shape[1] // 3)
        for first, _, texts, length in groups:
            fused = length >= _FUSED_FROM[qkv.dtype]
            step = texts if fused else max(1, _BLOCK_SCORES // (heads * length * length))
            for start in range(0, texts, step):
                count = min(step, texts - start)
                run = slice(first + start * length, first + (start + count) * length)
                parts = qkv[run].view(count, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
                if fused:
                    query, key, value = parts.unbind(0)
                    mixed = functional.scaled_dot_product_attention(query, key, value)
                else:
                    mixed = _two_products(parts)
                out[run].view(count, length, heads, -1).copy_(mixed.transpose(1, 2))
        return out

    return attend


def varlen_attention(batch: PackedBatch, heads: int, device: torch.device) -> Attend:
    """Return flash attention over all texts of the batch in one call, for CUDA."""
    from torch.nn.attention.varlen import varlen_attn

    ends = functional.pad(batch.lengths.cumsum(0), (1, 0)).to(torch.int32)
    offsets = ends.to(device, non_blocking=True)
    longest = int(batch.lengths[-1])

    def attend(qkv: Tensor) -> Tensor:
        query, key, value = qkv.view(qkv.shape[0], 3, heads, -1).unbind(1)
        mixed = varlen_attn(query, key, value, offsets, offsets, longest, longest)
        assert isinstance(mixed, Tensor)
        return mixed.reshape(qkv.shape[0], -1)

    return attend


def _two_products(parts: Tensor) -> Tensor:
    """Return attention by batched products; ``parts`` is ``[3, n, heads, L, d]``."""
    _, count, heads, length, width = parts.shape
    query, key, value = parts.reshape(3, count * heads, length, width).unbind(0)
    scores = torch.bmm(query, key.transpose(1, 2)).mul_(width**-0.5)
    return torch.bmm(_softmax(scores), value).view(count, heads, length, width)


def _softmax(scores: Tensor) -> Tensor:
    """Return the softmax over the last dimension."""
    if scores.shape[-1] % _VECTOR == 0 or float(scores.abs().max()) > _SAFE_SCORE:
        return scores.softmax(-1)
    powers = scores.float().exp_()
    return powers.div_(powers.sum(-1, keepdim=True)).to(scores.dtype)
