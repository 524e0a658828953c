"""One vector for a text from the states of its tokens, always in float32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from marec_env.embeddings.config import Pooling
from marec_env.embeddings.tokens import PackedBatch

__all__ = ["pool_packed", "pool_padded"]


def pool_packed(states: Tensor, batch: PackedBatch, pooling: Pooling) -> Tensor:
    """Return unit vectors, float32 ``[n, D]``, from packed states ``[T, D]``."""
    lengths = batch.lengths.to(states.device, non_blocking=True)
    ends = lengths.cumsum(0)
    if pooling == "cls":
        pooled = states[ends - lengths].float()
    elif pooling == "last":
        pooled = states[ends - 1].float()
    else:
        pooled = torch.segment_reduce(states.float(), "mean", lengths=lengths)
    return functional.normalize(pooled, dim=1)


def pool_padded(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Return unit vectors from padded states.

    Args:
        states: ``[n, L, D]``.
        mask: int64 ``[n, L]``, 1 at real tokens, which come before the padding.
        pooling: mean, cls or last.

    Returns:
        float32 ``[n, D]``.
    """
    if pooling == "cls":
        pooled = states[:, 0].float()
    elif pooling == "last":
        rows = torch.arange(states.shape[0], device=states.device)
        pooled = states[rows, mask.sum(dim=1) - 1].float()
    else:
        weights = mask.unsqueeze(-1).float()
        pooled = (states.float() * weights).sum(dim=1) / weights.sum(dim=1)
    return functional.normalize(pooled, dim=1)
