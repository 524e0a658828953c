"""The merger of recall's offers in tensor operations, which CUDA runs.

On the CPU :mod:`marec_env.pipeline.recall` has a compiled loop for it; both give the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.pipeline.topk import sort_rows

__all__ = ["TensorMerger", "first_occurrences"]

_CHANNEL_BIT = 32  # of a chosen place: the channel above it, the item below
_ITEM = (1 << _CHANNEL_BIT) - 1
_HEAD = 3  # times the mean want: how much of an offer is read at first
_GROWTH = 4  # times as much is read the next time


class TensorMerger:
    """Offers taken one after another; each step works only on sessions still in want.

    Attributes (``S`` sessions, C places):
        next: int64 ``[S]``, the next place to fill, counted through all sessions' places.
        end: int64 ``[S]``, the place after a session's last.
    """

    def __init__(self, unavailable: Tensor, total: int) -> None:
        sessions, count = unavailable.shape
        device = unavailable.device
        # A power of two of columns: one bit mask sends -1 to the last, which stands for no item.
        self._none = (1 << count.bit_length()) - 1
        self._free = torch.zeros(sessions, self._none + 1, dtype=torch.bool, device=device)
        torch.logical_not(unavailable, out=self._free[:, :count])
        # A place not yet filled holds no item.
        self._chosen = torch.full((sessions, total), self._none, device=device)
        line = torch.arange(sessions, device=device)
        self._first = (line * (self._none + 1)).unsqueeze(1)
        self.next = line * total
        self.end = self.next + total

    def missing(self) -> Tensor:
        """Return how many places each session has left, int64 ``[S]``."""
        return self.end - self.next

    def chosen(self) -> tuple[Tensor, Tensor]:
        """Return items and their channels, int64 ``[S, C]`` each."""
        return self._chosen & _ITEM, self._chosen >> _CHANNEL_BIT

    def fill(self, channel: int, items: Tensor, quota: Tensor) -> None:
        """Give each session the first free ones of ``items``, as many as its ``quota``."""
        rows = _true_places(quota)
        if not rows.numel():
            return
        missing = _of_rows(quota, rows)
        # Most find all they want at the head, for only what others took is in their way.
        first, head = 0, _HEAD * -(-int(missing.sum()) // rows.numel())
        while first < items.shape[1]:
            missing = missing - self._take(channel, rows, items[:, first : first + head], missing)
            left = _true_places(missing)
            if not left.numel():
                break
            first, head = first + head, _GROWTH * head
            rows, missing = rows.index_select(0, left), missing.index_select(0, left)

    def _take(self, channel: int, rows: Tensor, items: Tensor, quota: Tensor) -> Tensor:
        """Give each of ``rows`` the first ``quota`` free ones; return how many it got, ``[n]``.

        Tables are addressed as one line, and written only where something is taken: both cost less
        than rows and columns.
        """
        offered = _of_rows(items, rows)
        slots = (offered & self._none).add_(_of_rows(self._first, rows)).flatten()
        free = self._free.view(-1)
        wanted = free.index_select(0, slots).view(offered.shape)
        rank = wanted.cumsum(1)
        got = torch.minimum(rank[:, -1], quota)
        wanted.logical_and_(rank <= quota.unsqueeze(1))
        first = _of_rows(self.next, rows)
        taken = _true_places(wanted)
        places = rank.add_((first - 1).unsqueeze(1)).flatten().index_select(0, taken)
        chosen = offered.flatten().index_select(0, taken)
        free.scatter_(0, slots.index_select(0, taken), False)
        self._chosen.view(-1).scatter_(0, places, chosen.add_(channel << _CHANNEL_BIT))
        self.next.scatter_(0, rows, first + got)
        return got


def _true_places(mask: Tensor) -> Tensor:
    """Return where ``mask``, read as one line, is true or not 0: int64 ``[n]``, ascending."""
    return mask.flatten().nonzero().squeeze(1)


def _of_rows(table: Tensor, rows: Tensor) -> Tensor:
    """Return ``table[rows]``, the table itself where these (ascending) are all rows."""
    return table if rows.shape[0] == table.shape[0] else table.index_select(0, rows)


def first_occurrences(items: Tensor) -> Tensor:
    """Replace each later occurrence of an item in its row by -1: int64 ``[B, L] -> [B, L]``."""
    places = torch.arange(items.shape[1], device=items.device)
    ordered = sort_rows((items << 32) | places)
    item, place = ordered >> 32, ordered & 0xFFFFFFFF
    repeated = torch.zeros_like(item, dtype=torch.bool)
    repeated[:, 1:] = item[:, 1:] == item[:, :-1]
    return torch.empty_like(items).scatter_(1, place, torch.where(repeated, -1, item))
