"""A user in text space: the weighted history of item texts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["recency_weights", "text_profile"]


def recency_weights(age: Tensor, half_life: float) -> Tensor:
    """Return weights that halve every ``half_life``.

    Args:
        age: how long ago each event was, any unit, ``[B, H]``, >= 0.
        half_life: > 0, in the same unit.
    """
    return torch.exp2(-age / half_life)


def text_profile(vectors: Tensor, history: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return each user's profile in text space.

    Args:
        vectors: float32 ``[N, d]``, the items' text embeddings.
        history: int64 ``[B, H]``, item positions; -1 where there is none.
        weights: float32 ``[B, H]``, negative for what the user disliked; 1 if not given.

    Returns:
        float32 ``[B, d]``, unit length; zeros for a user without history.
    """
    there = history >= 0
    weight = there.float() if weights is None else torch.where(there, weights, 0.0)
    # embedding_bag sums without building [B, H, d]
    total = functional.embedding_bag(
        history.clamp(min=0), vectors, per_sample_weights=weight, mode="sum"
    )
    return functional.normalize(total, dim=1)
