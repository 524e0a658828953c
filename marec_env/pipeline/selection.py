"""Exact top-k of every row, and the merger of channels' offers; the same choice on CPU and CUDA.

A score and its column become one 64-bit number, which on the CPU numpy's vectorised quickselect
partitions, several times as fast as ``torch.topk`` there (``python benchmarks/pipeline.py`` prints
both). Equal positive scores go to the higher column, equal negative ones to the lower.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from marec_env.compiled import compiled, eager
from marec_env.pipeline import gpu_kernels
from marec_env.pipeline.gpu_kernels import KernelMerger, TensorMerger

EXCLUDED = -1e4  # far below any score, and exact in float32 sums

_SPARE_BITS = 29  # of a float64 significand that a float32 leaves zero: they hold the column
_COLUMN = (1 << _SPARE_BITS) - 1
_LARGEST = float(np.finfo(np.float32).max)
_BLOCK = 1 << 18  # keys partitioned at a time: 2 MB, about a core's cache
_COPIED = 1 << 16  # items of a catalog up to which the merger marks what it took in a copy
_local = threading.local()


def _workspace(rows: int, width: int) -> NDArray[np.float64]:
    """Return a buffer kept between calls: fresh pages cost more than the partition."""
    kept: NDArray[np.float64] | None = getattr(_local, "keys", None)
    if kept is None or kept.size < rows * width:
        kept = _local.keys = np.empty(rows * width)
    return kept[: rows * width].reshape(rows, width)


@cache
def _columns(width: int, device: str) -> Tensor:
    return torch.arange(width, device=device)


def _sorted_keys(scores: Tensor, excluded: Tensor | None, k: int) -> Tensor:
    """Return columns by sorting keys in tensor operations: what CUDA does without Triton."""
    keys = torch.empty(scores.shape, dtype=torch.float64, device=scores.device)
    if excluded is not None:
        scores = torch.where(excluded, scores + EXCLUDED, scores)
    # An infinity with a column in its low bits is not a number.
    keys.copy_(scores).clamp_(-_LARGEST, _LARGEST)
    keys.view(torch.int64).bitwise_or_(_columns(scores.shape[1], str(scores.device)))
    return keys.topk(k, dim=-1).values.view(torch.int64) & _COLUMN


@compiled
def _write_keys(
    scores: NDArray[np.float32], keys: NDArray[np.float64], bits: NDArray[np.int64]
) -> None:
    """Write scores into the high bits of float64 keys and columns into the low ones.

    ``bits`` are the keys' own; two loops over a row, since one would not be vectorised.
    """
    rows, width = scores.shape
    for row in range(rows):
        for column in range(width):
            keys[row, column] = min(max(scores[row, column], -_LARGEST), _LARGEST)
        for column in range(width):
            bits[row, column] |= column


@compiled
def _write_keys_but(
    scores: NDArray[np.float32],
    excluded: NDArray[np.bool_],
    keys: NDArray[np.float64],
    bits: NDArray[np.int64],
) -> None:
    """The same, with what is excluded far below; a float32 sum, so that the low bits stay free."""
    rows, width = scores.shape
    lowered = np.float32(EXCLUDED)
    for row in range(rows):
        for column in range(width):
            score = scores[row, column]
            keys[row, column] = score + lowered if excluded[row, column] else score
        for column in range(width):
            bits[row, column] |= column


def row_blocks(rows: int, width: int) -> list[slice]:
    """Return slices of rows so small that a block of ``width`` columns stays in a core's cache."""
    step = max(1, _BLOCK // width)
    return [slice(first, first + step) for first in range(0, rows, step)]


def top_k(scores: Tensor, k: int, *, excluded: Tensor | None = None) -> Tensor:
    """Return the columns of each row's ``k`` largest scores, largest first.

    Args:
        scores: float32 ``[B, N]`` without NaN; N below 2^29.
        k: how many, ``1 <= k <= N``.
        excluded: bool ``[B, N]``, taken only where nothing else is left; scores must then be small
            beside ``EXCLUDED``, which is added to these.

    Returns:
        Int64 ``[B, k]``.
    """
    rows, width = scores.shape
    if not eager(scores):
        if gpu_kernels.usable(scores, width):
            return gpu_kernels.largest(scores, excluded, k, EXCLUDED, _LARGEST)
        return _sorted_keys(scores, excluded, k)
    columns = torch.empty(rows, k, dtype=torch.int64)
    given, found = scores.numpy(), columns.numpy()
    barred = None if excluded is None else excluded.numpy()
    for block in row_blocks(rows, width):
        part = given[block]
        keys = _workspace(*part.shape)
        bits = keys.view(np.int64)
        if barred is None:
            _write_keys(part, keys, bits)
        else:
            _write_keys_but(part, barred[block], keys, bits)
        if k < width:
            keys.partition(width - k, axis=-1)
        keys[:, width - k :].sort(axis=-1)
        np.bitwise_and(bits[:, ::-1][:, :k], _COLUMN, out=found[block])
    return columns


def sort_rows(keys: Tensor) -> Tensor:
    """Return int64 ``[B, M]`` sorted ascending within each row."""
    if not eager(keys):
        return keys.sort(dim=-1).values
    return torch.from_numpy(np.sort(keys.numpy(), axis=-1))


def first_occurrences(items: Tensor) -> Tensor:
    """Replace each later occurrence of an item in its row by -1: int64 ``[B, L] -> [B, L]``."""
    places = torch.arange(items.shape[1], device=items.device)
    ordered = sort_rows((items << 32) | places)
    item, place = ordered >> 32, ordered & 0xFFFFFFFF
    repeated = torch.zeros_like(item, dtype=torch.bool)
    repeated[:, 1:] = item[:, 1:] == item[:, :-1]
    return torch.empty_like(items).scatter_(1, place, torch.where(repeated, -1, item))


def first_unseen(offered: Tensor, seen: Tensor, length: int) -> Tensor:
    """Return the first items that are not seen, int64 ``[B, length]``; -1 where there are no more.

    Args:
        offered: int64 ``[B, L]``, -1 for none.
        seen: bool ``[B, N]``.
        length: at most L.
    """
    left_out = (offered < 0) | seen.gather(1, offered.clamp(min=0))
    unseen_first = left_out.to(torch.int8).argsort(dim=1, stable=True)[:, :length]
    return torch.where(left_out, -1, offered).gather(1, unseen_first)


def merge(
    offer: Callable[[int], Tensor],
    quotas: Tensor,
    unavailable: Tensor,
    fallback: Tensor,
    total: int,
) -> tuple[Tensor, Tensor]:
    """Let channels fill their quotas in order; no item twice, no unavailable item.

    What a channel cannot fill (too little on offer) goes to the channels again in order, then to
    ``fallback``.

    Args:
        offer: from the channel's place to its int64 ``[B, L]`` items, best first, -1 for none;
            asked for only where a session wants any. No item twice in a row, but on the CPU
            (:func:`first_occurrences` sees to it).
        quotas: int64 ``[B, channels]`` with row sums C.
        unavailable: bool ``[B, N]``.
        fallback: int64 ``[N]``, the whole catalog in some order.
        total: C.

    Returns:
        Candidates int64 ``[B, C]`` in order of choice and the channel of each, int64 ``[B, C]``
        (the number of channels for the fallback).
    """
    kind: type[_LoopMerger | TensorMerger] = _LoopMerger
    if not quotas.is_cpu:
        kind = KernelMerger if gpu_kernels.usable(unavailable) else TensorMerger
    elif not eager(quotas):
        offers = [offer(channel) for channel in range(quotas.shape[1])]
        offers.append(fallback.expand(len(quotas), -1))
        ends = list(accumulate(made.shape[1] for made in offers))
        merged: tuple[Tensor, Tensor] = torch.ops.marec.merge(
            torch.cat(offers, dim=1), ends, pad(quotas, (0, 1)), unavailable, total
        )
        return merged
    return _serve(kind(unavailable, total), offer, quotas, fallback)


def _merge_at_once(
    offers: Tensor, ends: list[int], quotas: Tensor, unavailable: Tensor, total: int
) -> tuple[Tensor, Tensor]:
    """Merge offers that are all made: what a step recorded on the CPU calls, as one operator.

    Args:
        offers: int64 ``[B, sum of L]``, of the channels in turn; the fallback's are the last.
        ends: where each one's end.
        quotas, unavailable, total: see :func:`merge`; quotas of the fallback are 0.
    """
    merger = _LoopMerger(unavailable, total)
    for wanted in (quotas, torch.full_like(quotas, total)):
        merger.fill(0, offers, wanted, ends)
    return merger.chosen()


def _merged(
    offers: Tensor, ends: list[int], quotas: Tensor, unavailable: Tensor, total: int
) -> tuple[Tensor, Tensor]:
    """Return empty tensors like the results, for the compiler."""
    items = quotas.new_empty(len(quotas), total)
    return items, torch.empty_like(items)


_SCHEMA = "(Tensor offers, int[] ends, Tensor quotas, Tensor unavailable, int total)"
torch.library.define("marec::merge", f"{_SCHEMA} -> (Tensor, Tensor)")
torch.library.impl("marec::merge", "CPU", _merge_at_once)
torch.library.register_fake("marec::merge", _merged)


def _serve(
    merger: _LoopMerger | TensorMerger,
    offer: Callable[[int], Tensor],
    quotas: Tensor,
    fallback: Tensor,
) -> tuple[Tensor, Tensor]:
    at_once = quotas.is_cpu  # elsewhere nobody waits to learn that nothing is to do
    asked = quotas.any(0).tolist() if at_once else [True] * quotas.shape[1]
    for channel, quota in enumerate(quotas.T.contiguous()):
        if asked[channel]:
            merger.fill(channel, offer(channel), quota)
    for channel in range(quotas.shape[1]):
        missing = merger.missing()
        if at_once and not missing.numpy().any():
            return merger.chosen()
        merger.fill(channel, offer(channel), missing)
    missing = merger.missing()
    merger.fill(quotas.shape[1], fallback.expand(len(quotas), -1), missing)
    return merger.chosen()


class _LoopMerger:
    """Where offers are taken one after another, by a loop over sessions on the CPU."""

    def __init__(self, unavailable: Tensor, total: int) -> None:
        self._total = total
        self._taken = unavailable.numpy()
        # A copy of the whole catalog's mask would be most of the work where it is large.
        self._marked_anew = unavailable.shape[1] > _COPIED
        if not self._marked_anew:
            self._taken = self._taken.copy()
        self._items = np.full((len(self._taken), total), -1, np.int64)
        self._channels = np.empty_like(self._items)
        self._filled = np.zeros(len(self._taken), np.int64)

    def fill(
        self, channel: int, offered: Tensor, quota: Tensor, ends: Sequence[int] | None = None
    ) -> None:
        """Give each session the first free ones of what is offered, as many as its ``quota``; or
        of what this channel and those after it offer, whose offers end at ``ends``.
        """
        wanted = quota.numpy()
        _take(
            offered.numpy(),
            np.array(ends or (offered.shape[1],)),
            wanted if ends else wanted[:, None],
            channel,
            self._taken,
            self._items,
            self._channels,
            self._filled,
            self._marked_anew,
        )

    def missing(self) -> Tensor:
        """Return how many places each session has left, int64 ``[S]``."""
        return torch.from_numpy(self._total - self._filled)

    def chosen(self) -> tuple[Tensor, Tensor]:
        """Return items and their channels, int64 ``[S, C]`` each."""
        return torch.from_numpy(self._items), torch.from_numpy(self._channels)


@compiled
def _take(
    offered: NDArray[np.int64],
    ends: NDArray[np.int64],
    wanted: NDArray[np.int64],
    first: int,
    taken: NDArray[np.bool_],
    items: NDArray[np.int64],
    channels: NDArray[np.int64],
    filled: NDArray[np.int64],
    marked_anew: bool,
) -> None:
    """Give each session, channel by channel, the first ``wanted`` of what is ``offered`` and not
    yet ``taken``, as long as there are places.

    If ``marked_anew``, the marks of what is given are there within the call only.
    """
    for session in range(len(wanted)):
        place = filled[session]
        if marked_anew:
            for item in items[session, :place]:
                taken[session, item] = True
        begin = 0
        for channel, end in enumerate(ends):
            last = min(place + wanted[session, channel], items.shape[1])
            for choice in range(begin, end):
                if place == last:
                    break
                item = offered[session, choice]
                if item >= 0 and not taken[session, item]:
                    taken[session, item] = True
                    items[session, place] = item
                    channels[session, place] = first + channel
                    place += 1
            begin = end
        filled[session] = place
        if marked_anew:
            for item in items[session, :place]:
                taken[session, item] = False
