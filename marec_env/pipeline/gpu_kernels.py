"""What a GPU runs where the CPU has compiled loops: the merger of offers, and Triton kernels.

A kernel keeps a row of scores, or of offers, in one program's registers, where tensor operations
pass over all rows some twenty times. Results are those of the tensor operations, bit for bit; where
Triton, which comes with PyTorch for CUDA, cannot compile, these run instead.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

_LOG = logging.getLogger(__name__)
_WIDEST = 1 << 13  # scores of a row that registers hold
_CHUNK = 128  # offers looked at together
_WARPS = 4


def usable(values: Tensor, width: int = 1) -> bool:
    """Return whether kernels run where values are, on rows of ``width``."""
    return values.is_cuda and width <= _WIDEST and _compile(str(values.device))


@cache
def _compile(device: str) -> bool:
    """Return whether Triton is there and can compile, for which it needs a C compiler."""
    if triton is None:
        return False
    try:
        scores = torch.arange(3.0, device=device).expand(2, 3)
        items = largest(scores, scores > 9, 2, 0.0, 9.0)
        KernelMerger(scores > 9, 2).fill(0, items, items[:, 0])
        return items.tolist() == [[2, 1], [2, 1]]
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        _LOG.warning("no Triton kernels, but slower tensor operations: %s", said)
        return False


def _kernel(function: Any) -> Any:
    return function if triton is None else triton.jit(function)


@_kernel
def _largest(  # type: ignore[no-untyped-def]
    scores_at, excluded_at, keys_at, stride, width, k,
    excluding: tl.constexpr, lowered: tl.constexpr, limit: tl.constexpr,
    size: tl.constexpr, bits: tl.constexpr,
):  # fmt: skip
    """Write the keys of a row's ``k`` largest scores, in the order of their columns.

    A key is a number that orders as the score does, and below it 32 bits that order ties. Its two
    halves are found bit by bit: the largest number that ``k`` keys reach.
    """
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, size)
    inside = column < width
    score = tl.load(scores_at + row * stride + column, mask=inside, other=0.0)
    if excluding:
        out = tl.load(excluded_at + row * width + column, mask=inside, other=0)
        score = tl.where(out != 0, score + lowered, score)
    score = tl.minimum(tl.maximum(score, -limit), limit)
    raw = score.to(tl.int32, bitcast=True)
    order = raw ^ ((raw >> 31) & 0x7FFFFFFF)  # ascends as scores do
    least = tl.full((), -0x80000000, tl.int32)  # below every number's
    order = tl.where(inside, order, least)
    tie = tl.where(raw < 0, size - 1 - column, column)

    cut = least
    for place in range(32):
        higher = cut ^ (tl.full((), 1, tl.int32) << (31 - place))
        reached = tl.sum((order >= higher).to(tl.int32), 0)
        cut = tl.where(reached >= k, higher, cut)
    above = order > cut
    level = order == cut
    left = k - tl.sum(above.to(tl.int32), 0)
    cut_tie = tl.zeros((), tl.int32)
    for place in range(bits):
        higher_tie = cut_tie + (1 << (bits - 1 - place))
        reached = tl.sum((level & (tie >= higher_tie)).to(tl.int32), 0)
        cut_tie = tl.where(reached >= left, higher_tie, cut_tie)
    taken = above | (level & (tie >= cut_tie))
    slot = tl.cumsum(taken.to(tl.int32), 0) - 1
    key = (order.to(tl.int64) << 32) | tie.to(tl.int64)
    tl.store(keys_at + row * k + slot, key, mask=taken)


def largest(
    scores: Tensor, excluded: Tensor | None, k: int, lowered: float, limit: float
) -> Tensor:
    """Return the columns of each row's ``k`` largest scores, as
    :func:`marec_env.pipeline.selection.top_k` does.

    Args:
        scores, excluded, k: as there.
        lowered: added to what is excluded.
        limit: to which scores are clipped.
    """
    rows, width = scores.shape
    scores = scores.contiguous()
    size = max(16, triton.next_power_of_2(width))
    keys = torch.empty(rows, k, dtype=torch.int64, device=scores.device)
    _largest[(rows,)](
        scores, scores if excluded is None else excluded.contiguous(), keys, width, width, k,
        excluded is not None, lowered, limit, size, size.bit_length() - 1, num_warps=_WARPS,
    )  # fmt: skip
    keys = keys.sort(dim=1, descending=True).values
    tie = keys & 0xFFFFFFFF
    return torch.where(keys < 0, size - 1 - tie, tie)


@_kernel
def _take(  # type: ignore[no-untyped-def]
    offered_at, quota_at, free_at, items_at, channels_at, filled_at,
    stride, offers, catalog, places, channel, size: tl.constexpr,
):  # fmt: skip
    """Give a session the first free ones of what is offered, as many as its quota."""
    row = tl.program_id(0).to(tl.int64)
    wanted = tl.load(quota_at + row)
    filled = tl.load(filled_at + row)
    got = tl.zeros((), tl.int64)
    first = 0
    while (first < offers) & (got < wanted):
        place = first + tl.arange(0, size)
        item = tl.load(offered_at + row * stride + place, mask=place < offers, other=-1)
        free = tl.load(free_at + row * catalog + item, mask=item >= 0, other=0) != 0
        rank = got + tl.cumsum(free.to(tl.int64), 0)
        chosen = free & (rank <= wanted)
        slot = row * places + filled + rank - 1
        tl.store(items_at + slot, item, mask=chosen)
        tl.store(channels_at + slot, tl.zeros_like(item) + channel, mask=chosen)
        tl.store(free_at + row * catalog + item, tl.full((size,), 0, tl.int8), mask=chosen)
        got += tl.sum(chosen.to(tl.int64), 0)
        first += size
    tl.store(filled_at + row, filled + got)


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


class KernelMerger(TensorMerger):
    """The same by a kernel a channel."""

    def fill(self, channel: int, items: Tensor, quota: Tensor) -> None:
        """See :meth:`TensorMerger.fill`."""
        if items.stride(1) != 1:
            items = items.contiguous()
        _take[(len(items),)](
            items, quota.contiguous(), self._free.view(torch.int8), self._items, self._channels,
            self._filled, items.stride(0), items.shape[1], self._none + 1, self._total + 1,
            channel, _CHUNK, num_warps=1,
        )  # fmt: skip
