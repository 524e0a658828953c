"""The merger of recall's offers in tensor operations, which CUDA runs.

On the CPU :mod:`marec_env.pipeline.recall` has a compiled loop for it; both give the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.pipeline.topk import sort_rows

__all__ = ["TensorMerger", "first_occurrences"]


class TensorMerger:
    """Offers taken one after another, all sessions at once."""

    def __init__(self, unavailable: Tensor, total: int) -> None:
        """Args:
        unavailable: bool ``[S, N]``, items that may not be chosen.
        total: C.
        """
        sessions, self._none = unavailable.shape
        self._total = total
        # A last column stands for no item, and a last place for what is not taken.
        self._free = torch.nn.functional.pad(~unavailable, (0, 1))
        places = (sessions, total + 1)
        self._items = torch.zeros(places, dtype=torch.int64, device=unavailable.device)
        self._channels = torch.zeros_like(self._items)
        self._filled = torch.zeros_like(self._items[:, :1])

    def missing(self) -> Tensor:
        """Return how many places each session has left, int64 ``[S]``."""
        return self._total - self._filled.squeeze(1)

    def chosen(self) -> tuple[Tensor, Tensor]:
        """Return items and their channels, int64 ``[S, C]`` each."""
        return self._items[:, :-1], self._channels[:, :-1]

    def fill(self, channel: int, items: Tensor, quota: Tensor) -> None:
        """Give each session the first free ones of ``items``, as many as its ``quota``."""
        columns = torch.where(items < 0, self._none, items)
        wanted = self._free.gather(1, columns)
        rank = wanted.cumsum(1)
        wanted = wanted & (rank <= quota.unsqueeze(1))
        places = torch.where(wanted, self._filled + rank - 1, self._total)
        self._items.scatter_(1, places, columns)
        self._channels.scatter_(1, places, torch.full_like(places, channel))
        self._free.scatter_(1, torch.where(wanted, columns, self._none), False)
        self._filled = self._filled + wanted.sum(1, keepdim=True)


def first_occurrences(items: Tensor) -> Tensor:
    """Replace each later occurrence of an item in its row by -1: int64 ``[B, L] -> [B, L]``."""
    places = torch.arange(items.shape[1], device=items.device)
    ordered = sort_rows((items << 32) | places)
    item, place = ordered >> 32, ordered & 0xFFFFFFFF
    repeated = torch.zeros_like(item, dtype=torch.bool)
    repeated[:, 1:] = item[:, 1:] == item[:, :-1]
    return torch.empty_like(items).scatter_(1, place, torch.where(repeated, -1, item))
