"""Exact top-k of every row, with the same choice on CPU and CUDA.

A score and its column become one 64-bit number, which on the CPU numpy's vectorised quickselect
partitions, several times as fast as ``torch.topk`` there (``python benchmarks/pipeline.py`` prints
both). Equal positive scores go to the higher column, equal negative ones to the lower.
"""

from __future__ import annotations

import threading
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marec_env.compiled import compiled, eager
from marec_env.pipeline import gpu_kernels

__all__ = ["EXCLUDED", "first_occurrences", "row_blocks", "sort_rows", "top_k"]

EXCLUDED = -1e4  # far below any score, and exact in float32 sums

_SPARE_BITS = 29  # of a float64 significand that a float32 leaves zero: they hold the column
_COLUMN = (1 << _SPARE_BITS) - 1
_LARGEST = float(np.finfo(np.float32).max)
_BLOCK = 1 << 18  # keys partitioned at a time: 2 MB, about a core's cache
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
