"""Loss functions of PPO as pure functions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = [
    "clipped_policy_loss",
    "clipped_value_loss",
    "explained_variance",
    "not_finite",
    "weighted_mean",
]


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of ``values`` over entries of weight 1; 0 where there is none."""
    # A product with weight 0 would keep NaN and infinity of entries that do not count.
    counted = torch.where(weights > 0, values, 0.0)
    return (counted * weights).sum() / weights.sum().clamp_min(1.0)


def clipped_policy_loss(
    log_ratio: Tensor, advantages: Tensor, weights: Tensor, clip: float
) -> Tensor:
    """Return PPO's clipped surrogate loss (Schulman et al., arXiv 1707.06347, equation 7).

    Args:
        log_ratio: log of new over old probability of the joint action, ``[N]``.
        advantages: ``[N]``.
        weights: ``[N]``, 1 for decisions that count and 0 for others.
        clip: ε.
    """
    ratio = log_ratio.exp()
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1.0 - clip, 1.0 + clip) * advantages)
    return -weighted_mean(surrogate, weights)


def clipped_value_loss(
    values: Tensor,
    old_values: Tensor,
    targets: Tensor,
    weights: Tensor,
    delta: float,
    clip: float | None,
) -> Tensor:
    """Return the Huber value loss, the worse of the value and the value clipped to the old one.

    Args:
        values: ``[N, heads]``, like the next three.
        old_values: those with which the advantages were computed.
        targets: in the units of the values.
        weights: 1 for entries that count and 0 for others.
        delta: error beyond which the loss is linear.
        clip: largest useful distance from the old value; None for no clipping.
    """
    loss = torch.nn.functional.huber_loss(values, targets, reduction="none", delta=delta)
    if clip is not None:
        near = old_values + (values - old_values).clamp(-clip, clip)
        loss = torch.maximum(
            loss, torch.nn.functional.huber_loss(near, targets, reduction="none", delta=delta)
        )
    return weighted_mean(loss, weights)


def explained_variance(predictions: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return 1 - Var(target - prediction) / Var(target) over entries of weight 1; 0 if constant."""
    mean = weighted_mean(targets, weights)
    variance = weighted_mean((targets - mean).square(), weights)
    error = targets - predictions
    residual = weighted_mean((error - weighted_mean(error, weights)).square(), weights)
    return torch.where(variance > 0, 1.0 - residual / variance.clamp_min(1e-12), 0.0)


def not_finite(columns: Mapping[str, Tensor]) -> list[str]:
    """Return the names of columns that are not finite where they count."""
    counted = columns["weights"] > 0
    rows = counted if "advantages" in columns else counted.any(dim=-1)  # critics have heads
    return [
        key
        for key, column in columns.items()
        if column.shape[: rows.dim()] == rows.shape and not torch.isfinite(column[rows]).all()
    ]
