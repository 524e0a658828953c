"""Exact top-k of every row, with the same choice on CPU and CUDA.

On the CPU a score and its column become one 64-bit number, which numpy's vectorised quickselect
partitions, several times as fast as ``torch.topk`` there (``python benchmarks/pipeline.py`` prints
both). Equal positive scores go to the higher column, equal negative ones to the lower.
"""

from __future__ import annotations

import threading
from functools import cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["row_blocks", "sort_rows", "top_k", "true_places"]

_SPARE_BITS = 29  # of a float64 significand that a float32 leaves zero: they hold the column
_COLUMN = (1 << _SPARE_BITS) - 1
_LARGEST = torch.finfo(torch.float32).max
_BLOCK = 1 << 18  # keys partitioned at a time: 2 MB, about a core's cache
_local = threading.local()


def _workspace(rows: int, width: int, dtype: torch.dtype) -> Tensor:
    """Return a buffer kept between calls: fresh pages cost more than the partition."""
    name = str(dtype)
    kept: Tensor | None = getattr(_local, name, None)
    if kept is None or kept.numel() < rows * width:
        with torch.inference_mode(False):  # else of no use outside that mode
            kept = torch.empty(rows * width, dtype=dtype)
        setattr(_local, name, kept)
    return kept[: rows * width].view(rows, width)


@cache
def _columns(width: int, device: str) -> Tensor:
    return torch.arange(width, device=device)


def _fill_keys(keys: Tensor, scores: Tensor, penalty: Tensor | None) -> None:
    """Write scores into the high bits of float64 keys and columns into the low ones."""
    if penalty is None:
        # An infinity with a column in its low bits is not a number.
        keys.copy_(scores).clamp_(-_LARGEST, _LARGEST)
    elif scores.is_cuda:
        torch.add(scores, penalty, out=keys)  # a float32 sum, so the low bits stay free
    else:  # the same in two steps that the CPU vectorises
        sums = _workspace(scores.shape[0], scores.shape[1], torch.float32)
        keys.copy_(torch.add(scores, penalty, out=sums))
    keys.view(torch.int64).bitwise_or_(_columns(scores.shape[1], str(scores.device)))


def _largest_keys(scores: Tensor, penalty: Tensor | None, k: int, ordered: bool) -> Tensor:
    """Return the columns of the ``k`` largest scores of a block of rows on the CPU."""
    rows, width = scores.shape
    keys = _workspace(rows, width, torch.float64)
    _fill_keys(keys, scores, penalty)
    array = keys.numpy()
    if k < width:
        array.partition(width - k, axis=-1)
    largest = array[:, width - k :]
    if ordered:
        largest = np.sort(largest, axis=-1)[:, ::-1]
    # A copy: the workspace is reused, and torch takes no negative strides.
    return torch.from_numpy(largest.copy().view(np.int64)).bitwise_and_(_COLUMN)


def row_blocks(rows: int, width: int) -> list[slice]:
    """Return slices of rows so small that a block of ``width`` columns stays in a core's cache."""
    step = max(1, _BLOCK // width)
    return [slice(first, first + step) for first in range(0, rows, step)]


def top_k(scores: Tensor, k: int, *, ordered: bool = True, penalty: Tensor | None = None) -> Tensor:
    """Return the columns of each row's ``k`` largest scores.

    Args:
        scores: float32 ``[B, N]`` without NaN; N below 2^29.
        k: how many, ``1 <= k <= N``.
        ordered: largest first; else in no particular (but repeatable) order.
        penalty: float32 ``[B, N]``, added to the scores first; both must then be finite.

    Returns:
        Int64 ``[B, k]``.
    """
    rows, width = scores.shape
    if scores.is_cuda:
        keys = torch.empty(rows, width, dtype=torch.float64, device=scores.device)
        _fill_keys(keys, scores, penalty)
        largest = keys.topk(k, dim=-1, sorted=ordered).values
        return largest.view(torch.int64) & _COLUMN
    parts = [
        _largest_keys(scores[block], None if penalty is None else penalty[block], k, ordered)
        for block in row_blocks(rows, width)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def sort_rows(keys: Tensor) -> Tensor:
    """Return int64 ``[B, M]`` sorted ascending within each row."""
    if keys.is_cuda:
        return keys.sort(dim=-1).values
    return torch.from_numpy(np.sort(keys.numpy(), axis=-1))


def true_places(mask: Tensor) -> Tensor:
    """Return where a tensor, read as one line, is true or not 0: int64 ``[n]``, ascending."""
    if mask.is_cuda:
        return mask.flatten().nonzero().squeeze(1)
    return torch.from_numpy(np.flatnonzero(mask.numpy()))
