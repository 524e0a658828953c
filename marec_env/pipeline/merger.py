"""The merger of offers: channels fill their quotas in order, no item twice, none seen before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from marec_env.compiled import compiled, eager
from marec_env.pipeline import gpu_kernels
from marec_env.pipeline.gpu_kernels import KernelMerger, TensorMerger

__all__ = ["merge"]


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
        self._taken = unavailable.numpy().copy()
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
) -> None:
    """Give each session, channel by channel, the first ``wanted`` of what is ``offered`` and not
    yet ``taken``, as long as there are places.
    """
    for session in range(len(wanted)):
        place = filled[session]
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
