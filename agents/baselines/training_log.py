"""The recommender's own data in the forms that algorithms train on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from marec_env.data.log import InteractionLog

__all__ = ["TrainingLog", "training_log"]


@dataclass(frozen=True, slots=True)
class TrainingLog:
    """The likes of ``U`` users over ``N`` items that the recommender may see."""

    user: Tensor
    """Int64 ``[R]``, sorted by user, then time."""
    item: Tensor
    """Int64 ``[R]``."""
    num_users: int
    num_items: int

    @property
    def counts(self) -> Tensor:
        """Float32 ``[N]``: likes of each item."""
        return torch.bincount(self.item, minlength=self.num_items).to(torch.float32)

    def matrix(self) -> sparse.csr_matrix:
        """Return the ``[U, N]`` matrix of likes, float32, each 1."""
        shape = (self.num_users, self.num_items)
        entries = (np.ones(self.user.numel(), dtype=np.float32), (self.user, self.item))
        matrix = sparse.csr_matrix(entries, shape=shape)
        matrix.data[:] = 1.0  # a repeated like counts once
        return matrix

    def sequences(self, length: int) -> Tensor:
        """Return each user's latest ``length`` likes, int64 ``[U, length]``, front-padded by -1."""
        totals = torch.bincount(self.user, minlength=self.num_users)
        ends = totals.cumsum(0)
        position = torch.arange(self.user.numel())
        from_end = ends[self.user] - 1 - position
        kept = from_end < length
        table = torch.full((self.num_users, length), -1, dtype=torch.int64)
        table[self.user[kept], length - 1 - from_end[kept]] = self.item[kept]
        return table


def training_log(log: InteractionLog) -> TrainingLog:
    """Return the likes of a log that is already cut to what the recommender may see."""
    liked = log.liked
    return TrainingLog(log.user[liked], log.item[liked], log.num_users, log.num_items)
