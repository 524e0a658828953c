"""Matrix factorisation by alternating least squares, deterministic and batched.

Two models of a user u and an item x:

* ``explicit``: rating ≈ mean + user bias + item bias + u·x over the observed ratings, with ridge
  terms (Koren, Bell and Volinsky, "Matrix factorization techniques for recommender systems", IEEE
  Computer 42(8), 2009);
* ``implicit``: preference 1 for consumed items and 0 for all others, ≈ u·x, observed cells weighted
  ``1 + confidence`` (Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback
  datasets", ICDM 2008).

Every half sweep solves all rows' normal equations in float64, rows of similar length together; of
more than 10,000 rows those with fewer interactions than dimensions, most of a large catalog's, in
as many unknowns as they have interactions (Woodbury's identity).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from marec_env import random
from marec_env.data.interactions import InteractionLog
from marec_env.errors import DataError

FactorModel = Literal["explicit", "implicit"]
_CELLS = 1 << 20  # of a padded batch times its dimension; bounds memory at about 8 MB a tensor
_LARGE = 10_000  # users and items, beyond which short rows are solved in their own size
INITIAL = 0.1
"""Standard deviation of the first item factors."""


@dataclass(frozen=True, slots=True)
class Factors:
    """Score of user u for item i: ``mean + user_bias[u] + item_bias[i] + user[u] · item[i]``."""

    user: Tensor
    """Float32 ``[U, d]``."""
    item: Tensor
    """Float32 ``[N, d]``."""
    user_bias: Tensor
    """Float32 ``[U]``; zero in the implicit model."""
    item_bias: Tensor
    """Float32 ``[N]``; zero in the implicit model."""
    mean: float

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the scores of pairs, int64 ``[M]`` each, as float32 ``[M]``."""
        product = (self.user[users] * self.item[items]).sum(-1)
        return self.mean + self.user_bias[users] + self.item_bias[items] + product


class ObservedRows:
    """Interactions grouped by one side, cut into batches of rows of similar length."""

    def __init__(self, row: Tensor, column: Tensor, count: int) -> None:
        order = torch.argsort(row, stable=True)
        self.order = order
        self.column = column[order]
        self.length = torch.bincount(row, minlength=count)
        self.start = torch.cumsum(self.length, 0) - self.length

    def batches(self, dim: int, apart: bool) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield rows ``[b]``, places in the sorted interactions ``[b, m]`` and their mask.

        Rows with fewer interactions than dimensions are kept ``apart``, if wanted.
        """
        by_length = torch.argsort(self.length, stable=True)
        by_length = by_length[self.length[by_length] > 0]
        position = by_length.shape[0]
        short = int((self.length[by_length] < dim).sum()) if apart else 0
        while position > 0:
            width = int(self.length[by_length[position - 1]])
            together = position - short if width >= dim else position
            size = max(1, min(together, _CELLS // (width * dim)))
            rows = by_length[position - size : position]
            offset = torch.arange(width)
            mask = offset < self.length[rows, None]
            yield rows, (self.start[rows, None] + offset).where(mask, 0), mask
            position -= size

    def solve(
        self,
        other: Tensor,
        weight: Tensor,
        target: Tensor,
        base: Tensor,
        towards: Tensor | None = None,
        into: Tensor | None = None,
    ) -> Tensor:
        """Return this side's least-squares factors, float64 ``[count, d]``; 0 where no data.

        Args:
            other: float64 ``[M, d]``, the other side's regressors.
            weight: float64 ``[R]``, of each interaction in the normal matrix (source order).
            target: float64 ``[R]``, weight times value.
            base: float64 ``[d, d]``, added to every normal matrix.
            towards: float64 ``[count, d]``, added to the right-hand sides, also where no data is.
            into: float64 ``[count, d]``, earlier factors to be written over, 0 where no data is.
        """
        dim = other.shape[1]
        weight, target = weight[self.order], target[self.order]
        size = (len(self.length), dim)
        solution = torch.zeros(size, dtype=torch.float64) if into is None else into
        if towards is not None:
            solution = torch.linalg.solve(base, towards.T).T.contiguous()
        # The short form below knows no other right-hand sides.
        large = len(solution) + len(other) > _LARGE and towards is None
        spread = other @ torch.linalg.inv(base) if large else other
        for row, place, mask in self.batches(dim, large):
            features = other[self.column[place]]  # [b, m, d]
            if large and mask.shape[1] < dim:
                # x = S' √W z, (I + √W S F' √W) z = t / √W, S the features times base's inverse.
                root = (weight[place] * mask).sqrt().unsqueeze(-1)
                short = spread[self.column[place]] * root
                normal = short @ (features * root).transpose(1, 2)
                normal.diagonal(dim1=1, dim2=2).add_(1.0)
                right = (target[place].unsqueeze(-1) / root).where(mask.unsqueeze(-1), 0.0)
                found = torch.cholesky_solve(right, torch.linalg.cholesky(normal))
                solution[row] = (short.transpose(1, 2) @ found).squeeze(-1)
                continue
            weighted = features * (weight[place] * mask).unsqueeze(-1)
            normal = weighted.transpose(1, 2) @ features + base
            right = (features * (target[place] * mask).unsqueeze(-1)).sum(1)
            if towards is not None:
                right = right + towards[row]
            factor = torch.linalg.cholesky(normal)
            solution[row] = torch.cholesky_solve(right.unsqueeze(-1), factor).squeeze(-1)
        return solution


def fit_factors(
    log: InteractionLog,
    dim: int,
    *,
    model: FactorModel = "explicit",
    sweeps: int = 10,
    ridge: float = 8.0,
    confidence: float = 4.0,
    seed: int = 0,
) -> Factors:
    """Fit a factor model; a user or item without interactions gets the zero vector.

    Args:
        log: what to fit on.
        dim: dimensions of the factors, without the biases.
        model: see the module.
        sweeps: alternations over both sides.
        ridge: the ridge term, in observations (``explicit``) or in units of the confidence
            (``implicit``).
        confidence: extra weight of an observed cell over an empty one (``implicit`` only); liked
            interactions count fully, others half.
        seed: of the first item factors.

    Raises:
        DataError: the log has no interactions.
    """
    if log.num_interactions == 0:
        raise DataError("cannot fit factors: the log has no interactions")
    by_user = ObservedRows(log.user, log.item, log.num_users)
    by_item = ObservedRows(log.item, log.user, log.num_items)
    keys = random.session_keys(seed, torch.arange(log.num_items))
    item = INITIAL * random.normal(keys, 0, "data/factors", dim).to(torch.float64)
    item[by_item.length == 0] = 0.0
    user_bias = torch.zeros(log.num_users, dtype=torch.float64)
    item_bias = torch.zeros(log.num_items, dtype=torch.float64)
    if model == "implicit":
        mean = 0.0
        weight = confidence * torch.where(log.liked, 1.0, 0.5).to(torch.float64)
        damping = ridge * torch.eye(dim, dtype=torch.float64)
        target = 1.0 + weight
        user = torch.zeros(log.num_users, dim, dtype=torch.float64)
        for _ in range(sweeps):
            by_user.solve(item, weight, target, item.T @ item + damping, into=user)
            by_item.solve(user, weight, target, user.T @ user + damping, into=item)
    else:
        rating = log.rating.to(torch.float64)
        mean = float(rating.mean())
        # The bias is one more coordinate whose regressor is 1: solved with the rest.
        damping = ridge * torch.eye(dim + 1, dtype=torch.float64)
        weight = torch.ones_like(rating)
        for _ in range(sweeps):
            residual = rating - mean - item_bias[log.item]
            solved = by_user.solve(_with_one(item), weight, residual, damping)
            user, user_bias = solved[:, :dim], solved[:, dim]
            residual = rating - mean - user_bias[log.user]
            solved = by_item.solve(_with_one(user), weight, residual, damping)
            item, item_bias = solved[:, :dim], solved[:, dim]
    return Factors(user.float(), item.float(), user_bias.float(), item_bias.float(), mean)


def _with_one(factors: Tensor) -> Tensor:
    return torch.cat([factors, torch.ones(factors.shape[0], 1, dtype=factors.dtype)], 1)
