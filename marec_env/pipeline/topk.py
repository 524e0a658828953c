"""Exact top-k of every row, with the same choice on CPU and CUDA.

On the CPU a score and its column become one 64-bit number, which numpy's vectorised quickselect
partitions, several times as fast as ``torch.topk`` there (``python benchmarks/pipeline.py`` prints
both). Equal positive scores go to the higher column, equal negative ones to the lower.
"""

from __future__ import annotations

import threading

import numpy as np
import torch
from torch import Tensor

__all__ = ["sort_rows", "top_k"]

_SPARE_BITS = 29  # of a float64 significand that a float32 leaves zero: they hold the column
_COLUMN = (1 << _SPARE_BITS) - 1
_LARGEST = torch.finfo(torch.float32).max
_BLOCK = 1 << 18  # keys partitioned at a time: 2 MB, about a core's cache
_local = threading.local()


def _workspace(rows: int, width: int) -> Tensor:
    """Return a float64 buffer kept between calls: fresh pages cost more than the partition."""
    kept: Tensor | None = getattr(_local, "keys", None)
    if kept is None or kept.shape[0] < rows or kept.shape[1] != width:
        kept = _local.keys = torch.empty(rows, width, dtype=torch.float64)
    return kept[:rows]


def _largest_keys(scores: Tensor, k: int, ordered: bool) -> Tensor:
    """Return the columns of the ``k`` largest scores of a block of rows on the CPU."""
    rows, width = scores.shape
    keys = _workspace(rows, width)
    keys.copy_(scores)
    keys.clamp_(-_LARGEST, _LARGEST)  # an infinity with a column in its low bits is not a number
    keys.view(torch.int64).bitwise_or_(torch.arange(width))
    array = keys.numpy()
    if k < width:
        array.partition(width - k, axis=-1)
    largest = array[:, width - k :]
    if ordered:
        largest = np.sort(largest, axis=-1)[:, ::-1]
    # A copy: the workspace is reused, and torch takes no negative strides.
    return torch.from_numpy(largest.copy().view(np.int64)) & _COLUMN


def top_k(scores: Tensor, k: int, *, ordered: bool = True) -> Tensor:
    """Return the columns of each row's ``k`` largest scores.

    Args:
        scores: float32 ``[B, N]`` without NaN; N below 2^29.
        k: how many, ``1 <= k <= N``.
        ordered: largest first; else in no particular (but repeatable) order.

    Returns:
        Int64 ``[B, k]``.
    """
    rows, width = scores.shape
    if scores.is_cuda:
        keys = scores.to(torch.float64).clamp_(-_LARGEST, _LARGEST)
        keys.view(torch.int64).bitwise_or_(torch.arange(width, device=scores.device))
        largest = keys.topk(k, dim=-1, sorted=ordered).values
        return largest.view(torch.int64) & _COLUMN
    step = max(1, _BLOCK // width)
    parts = [
        _largest_keys(scores[first : first + step], k, ordered) for first in range(0, rows, step)
    ]
    return torch.cat(parts)


def sort_rows(keys: Tensor) -> Tensor:
    """Return int64 ``[B, M]`` sorted ascending within each row."""
    if keys.is_cuda:
        return keys.sort(dim=-1).values
    return torch.from_numpy(np.sort(keys.numpy(), axis=-1))
