"""Quotas for recall channels, and their merger into one list of candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marec_env.compiled import compiled
from marec_env.pipeline.topk import sort_rows

__all__ = ["first_occurrences", "merge", "quotas_of"]

_CHANNEL_BIT = 32  # of a chosen place: the channel above it, the item below
_ITEM = (1 << _CHANNEL_BIT) - 1
_HEAD = 3  # times the mean want: how much of an offer is read at first
_GROWTH = 4  # times as much is read the next time


def quotas_of(levels: Tensor, total: int) -> Tensor:
    """Share ``total`` places in proportion to levels, by largest remainders.

    Args:
        levels: int64 ``[B, channels]``, >= 0; a row of zeros shares equally.
        total: the candidates to be found, C.

    Returns:
        Int64 ``[B, channels]``; rows sum to ``total``; ties go to the earlier channel.
    """
    if not levels.is_cpu:
        return _quotas_by_sorting(levels, total)
    quotas = torch.empty(levels.shape, dtype=torch.int64)
    _share_places(levels.numpy(), total, quotas.numpy())
    return quotas


def _quotas_by_sorting(levels: Tensor, total: int) -> Tensor:
    channels = levels.shape[1]
    weight = torch.where(levels.sum(1, keepdim=True) > 0, levels, torch.ones_like(levels))
    scaled = weight * total
    whole = weight.sum(1, keepdim=True)
    quota = torch.div(scaled, whole, rounding_mode="floor")
    remainder = scaled - quota * whole
    order = torch.arange(channels - 1, -1, -1, device=levels.device)
    rank = (remainder * channels + order).argsort(1, descending=True).argsort(1)
    missing = total - quota.sum(1, keepdim=True)
    return quota + (rank < missing).to(torch.int64)


@compiled
def _share_places(levels: NDArray[np.int64], total: int, quotas: NDArray[np.int64]) -> None:
    """Fill ``quotas`` as :func:`quotas_of` says."""
    sessions, channels = levels.shape
    remainder = np.empty(channels, np.int64)
    for session in range(sessions):
        whole = levels[session].sum()
        missing = total
        for channel in range(channels):
            scaled = (levels[session, channel] if whole else 1) * total
            quotas[session, channel] = scaled // (whole or channels)
            remainder[channel] = scaled % (whole or channels)
            missing -= quotas[session, channel]
        for _ in range(missing):
            largest = remainder.argmax()  # the first of equals
            quotas[session, largest] += 1
            remainder[largest] = -1


def merge(
    offers: Sequence[Tensor], quotas: Tensor, unavailable: Tensor, fallback: Tensor
) -> tuple[Tensor, Tensor]:
    """Let channels fill their quotas in order; no item twice, no unavailable item.

    What a channel cannot fill (too little on offer) goes to the channels again in order, then to
    ``fallback``.

    Args:
        offers: per channel, int64 ``[B, L_c]`` items, best first, -1 for none; no item twice in a
            row of one channel (:func:`first_occurrences` sees to it). Read only where a session
            wants any.
        quotas: int64 ``[B, channels]`` with equal row sums C.
        unavailable: bool ``[B, N]``.
        fallback: int64 ``[N]``, the whole catalog in some order.

    Returns:
        Candidates int64 ``[B, C]`` in order of choice and the channel of each, int64 ``[B, C]``
        (the number of channels for the fallback).
    """
    total = int(quotas[0].sum())
    desk = (_LoopDesk if quotas.is_cpu else _TensorDesk)(unavailable, total)
    return _serve(desk, offers, quotas, fallback)


def _serve(
    desk: _LoopDesk | _TensorDesk, offers: Sequence[Tensor], quotas: Tensor, fallback: Tensor
) -> tuple[Tensor, Tensor]:
    for channel, quota in enumerate(quotas.T.contiguous()):
        desk.fill(channel, offers, quota)
    for channel in range(len(offers)):
        if not desk.fill(channel, offers, desk.missing()):
            break
    else:
        everything = fallback.expand(len(quotas), -1)
        desk.fill(len(offers), {len(offers): everything}, desk.missing())
    return desk.chosen()


Offers = Sequence[Tensor] | Mapping[int, Tensor]


class _LoopDesk:
    """Where offers are taken one after another, by a loop over sessions on the CPU."""

    def __init__(self, unavailable: Tensor, total: int) -> None:
        self._total = total
        self._taken = unavailable.numpy().copy()
        self._items = np.full((len(self._taken), total), -1, np.int64)
        self._channels = np.empty_like(self._items)
        self._filled = np.zeros(len(self._taken), np.int64)

    def fill(self, channel: int, offers: Offers, quota: Tensor) -> bool:
        """Give each session the first free ones of ``offers[channel]``, as many as its ``quota``.

        Returns:
            Whether any session wanted one; if not, the offer was not asked for.
        """
        wanted = quota.numpy()
        if not wanted.any():
            return False
        offered = offers[channel].numpy()
        _take(offered, wanted, channel, self._taken, self._items, self._channels, self._filled)
        return True

    def missing(self) -> Tensor:
        """Return how many places each session has left, int64 ``[S]``."""
        return torch.from_numpy(self._total - self._filled)

    def chosen(self) -> tuple[Tensor, Tensor]:
        """Return items and their channels, int64 ``[S, C]`` each."""
        return torch.from_numpy(self._items), torch.from_numpy(self._channels)


@compiled
def _take(
    offered: NDArray[np.int64],
    wanted: NDArray[np.int64],
    channel: int,
    taken: NDArray[np.bool_],
    items: NDArray[np.int64],
    channels: NDArray[np.int64],
    filled: NDArray[np.int64],
) -> None:
    """Give each session the first ``wanted`` of what is ``offered`` and not yet ``taken``."""
    for session in range(len(wanted)):
        place = filled[session]
        end = place + wanted[session]
        for choice in range(offered.shape[1]):
            if place == end:
                break
            item = offered[session, choice]
            if item >= 0 and not taken[session, item]:
                taken[session, item] = True
                items[session, place] = item
                channels[session, place] = channel
                place += 1
        filled[session] = place


class _TensorDesk:
    """The same in tensor operations; each step works only on sessions still in want.

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
        """See :meth:`_LoopDesk.missing`."""
        return self.end - self.next

    def chosen(self) -> tuple[Tensor, Tensor]:
        """See :meth:`_LoopDesk.chosen`."""
        return self._chosen & _ITEM, self._chosen >> _CHANNEL_BIT

    def fill(self, channel: int, offers: Offers, quota: Tensor) -> bool:
        """See :meth:`_LoopDesk.fill`."""
        rows = _true_places(quota)
        if not rows.numel():
            return False
        items = offers[channel]
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
        return True

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


def first_occurrences(items: Tensor, num_items: int) -> Tensor:
    """Replace each later occurrence of an item in its row by -1: ``[B, L] -> [B, L]``.

    Args:
        items: int64 ``[B, L]``, -1 for none.
        num_items: N, above every item.
    """
    if not items.is_cpu:
        return _first_by_sorting(items)
    first = torch.empty(items.shape, dtype=torch.int64)
    _strike_out_repeated(items.numpy(), num_items, first.numpy())
    return first


@compiled
def _strike_out_repeated(
    items: NDArray[np.int64], num_items: int, first: NDArray[np.int64]
) -> None:
    """Fill ``first`` as :func:`first_occurrences` says."""
    met = np.full(num_items, -1)  # the latest row that held the item
    for row in range(len(items)):
        for place in range(items.shape[1]):
            item = items[row, place]
            repeated = item >= 0 and met[item] == row
            first[row, place] = -1 if repeated else item
            if item >= 0:
                met[item] = row


def _first_by_sorting(items: Tensor) -> Tensor:
    """Return the same in tensor operations."""
    places = torch.arange(items.shape[1], device=items.device)
    ordered = sort_rows((items << 32) | places)
    item, place = ordered >> 32, ordered & 0xFFFFFFFF
    repeated = torch.zeros_like(item, dtype=torch.bool)
    repeated[:, 1:] = item[:, 1:] == item[:, :-1]
    return torch.empty_like(items).scatter_(1, place, torch.where(repeated, -1, item))
