"""Deterministic k-means on unit vectors, in torch.

Seeding by k-means++ (Arthur and Vassilvitskii, SODA 2007), Lloyd iterations, several restarts, the
smallest inertia wins. Draws are stateless, so the clusters do not depend on global generators.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env import random
from marec_env.errors import DataError

__all__ = ["kmeans"]


def _distances(points: Tensor, centres: Tensor) -> Tensor:
    """Return squared distances ``[N, k]``."""
    square = points.square().sum(1, keepdim=True) + centres.square().sum(1)
    return (square - 2.0 * points @ centres.T).clamp_min(0.0)


def _seed_centres(points: Tensor, clusters: int, draws: Tensor) -> Tensor:
    """Choose the first centres: each point with probability as its squared distance to them."""
    chosen = [int(draws[0] * points.shape[0])]
    nearest = _distances(points, points[chosen]).squeeze(1)
    for draw in draws[1:clusters]:
        mass = torch.cumsum(nearest, 0)
        if float(mass[-1]) <= 0.0:  # fewer distinct points than clusters
            index = int(draw * points.shape[0])
        else:
            index = int(torch.searchsorted(mass, draw * mass[-1]).clamp_max(points.shape[0] - 1))
        chosen.append(index)
        nearest = torch.minimum(nearest, _distances(points, points[index : index + 1]).squeeze(1))
    return points[chosen]


def _lloyd(points: Tensor, centres: Tensor, iterations: int) -> tuple[Tensor, Tensor, float]:
    label = torch.full((points.shape[0],), -1)
    for _ in range(iterations):
        distance = _distances(points, centres)
        new = distance.argmin(1)
        if torch.equal(new, label):
            break
        label = new
        total = torch.zeros_like(centres).index_add_(0, label, points)
        count = torch.bincount(label, minlength=centres.shape[0]).to(points.dtype)
        # An empty cluster moves to the point that is worst served.
        farthest = points[distance.gather(1, label[:, None]).squeeze(1).argmax()]
        centres = torch.where(count[:, None] > 0, total / count[:, None].clamp_min(1.0), farthest)
    distance = _distances(points, centres)
    best, label = distance.min(1)
    return label, centres, float(best.sum())


def kmeans(
    points: Tensor, clusters: int, *, restarts: int = 8, iterations: int = 100, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Cluster points; clusters are numbered from the largest to the smallest.

    Args:
        points: float ``[N, d]``.
        clusters: k, at most N.
        restarts: seedings tried.
        iterations: Lloyd iterations at most.
        seed: of all draws.

    Returns:
        Int64 ``[N]`` labels and float64 ``[k, d]`` centres.

    Raises:
        DataError: more clusters than points, or points that are not finite.
    """
    if not 1 <= clusters <= points.shape[0]:
        raise DataError(
            f"topics: {clusters} clusters need at least as many items, there are {points.shape[0]}"
        )
    if not bool(torch.isfinite(points).all()):
        raise DataError("topics: the items' embeddings hold values that are not finite")
    values = points.to(torch.float64)
    keys = random.session_keys(seed, torch.arange(restarts))
    draws = random.uniform(keys, 0, "catalog/kmeans", clusters).to(torch.float64)
    runs = [
        _lloyd(values, _seed_centres(values, clusters, draws[run]), iterations)
        for run in range(restarts)
    ]
    label, centres, _ = min(runs, key=lambda run: run[2])
    order = torch.argsort(torch.bincount(label, minlength=clusters), descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(clusters)
    return rank[label], centres[order]
