"""One append-only pair of cache files: keys and rows.

``NAME.rows`` holds float32 rows; ``NAME.keys`` holds one 32-byte record a row: the key, a checksum
of the row, a checksum of the record. A row is written before its record, so a process killed at any
moment leaves whole entries and perhaps a torn tail, which readers do not see. Nothing written is
moved or shortened, so a reader's memory map stays valid whatever other processes do. The writer
holds a lock on ``NAME.keys`` while it lives; the kernel lets go of it however the writer ends.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["KEYS", "RECORD", "ROWS", "Segment", "SegmentWriter", "lock_if_idle", "row_sums"]

KEYS, ROWS = ".keys", ".rows"
RECORD = np.dtype([("key", "<u8", (2,)), ("sum", "<u8"), ("check", "<u8")])
_CHECK_OFFSET = 24  # bytes from the start of a record to its own checksum
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's increment and multiplier
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_SHIFT = np.uint64(31)

UInt64s = NDArray[np.uint64]


def _stride(dimension: int) -> int:
    """Return the floats in a stored row: even, so that a row is whole 64-bit words."""
    return dimension + dimension % 2


def row_sums(rows: NDArray[np.float32]) -> UInt64s:
    """Return each row's sum as 64-bit words, which one changed word always changes."""
    sums: UInt64s = rows.view(np.uint64).sum(axis=1, dtype=np.uint64)
    return sums


def _record_checks(keys: UInt64s, sums: UInt64s) -> UInt64s:
    """Return a checksum of each record that is not zero for a record of zeros."""
    value = sums + _GOLDEN
    for part in (keys[:, 0], keys[:, 1]):
        value = (value ^ part) * _MIX
        value ^= value >> _SHIFT
    return value


class Segment:
    """A segment as a reader sees it: the entries that were whole when it was opened."""

    def __init__(self, path: Path) -> None:
        """Map ``path`` (without suffix).

        Raises:
            FileNotFoundError: the segment was merged or evicted meanwhile.
        """
        self.path = path
        self.dimension = int(path.name.rsplit("-", 1)[1])
        records = np.fromfile(path.with_suffix(KEYS), dtype=RECORD)
        stride = _stride(self.dimension)
        stored = path.with_suffix(ROWS).stat().st_size // (4 * stride)
        self.records = records[: min(len(records), stored)]
        count = len(self.records)
        self._rows: NDArray[np.float32] = (
            # copy-on-write: torch wants writable memory, and the file must not change
            np.memmap(path.with_suffix(ROWS), dtype="<f4", mode="c", shape=(count, stride))
            if count
            else np.zeros((0, stride), dtype=np.float32)
        )

    @property
    def entries(self) -> int:
        """The number of entries, damaged ones included."""
        return len(self.records)

    @property
    def keys(self) -> UInt64s:
        """The keys, uint64 ``[count, 2]``."""
        keys: UInt64s = self.records["key"]
        return keys

    def sound(self) -> NDArray[np.bool_]:
        """Return which records are whole, bool ``[count]``; their rows are not looked at."""
        sums: UInt64s = self.records["sum"]
        result: NDArray[np.bool_] = _record_checks(self.keys, sums) == self.records["check"]
        return result

    def read(self, places: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        """Return rows and which of them are damaged.

        Args:
            places: int64 ``[n]``, entries of this segment.

        Returns:
            float32 ``[n, dimension]``, a view of the mapped file where the places follow one
            another; and the places, among ``places``, whose rows fail their checksum.
        """
        if len(places) and bool((np.diff(places) == 1).all()):
            rows = self._rows[int(places[0]) : int(places[-1]) + 1]
        else:
            rows = self._rows[places]
        damaged = places[row_sums(rows) != self.records["sum"][places]]
        return torch.from_numpy(np.asarray(rows))[:, : self.dimension], damaged

    def strike_out(self, places: NDArray[np.int64]) -> None:
        """Make damaged entries unreadable for everyone, so that a later entry replaces them."""
        with open(self.path.with_suffix(KEYS), "r+b", buffering=0) as stream:
            for place in places.tolist():
                os.pwrite(stream.fileno(), bytes(8), place * RECORD.itemsize + _CHECK_OFFSET)


class SegmentWriter:
    """Appends entries to a new segment of its own."""

    def __init__(self, folder: Path, dimension: int, *, hidden: bool = False) -> None:
        """Args:
        folder: where the segment is made.
        dimension: floats in a row.
        hidden: give it a name that readers pass over until :meth:`publish`.

        Raises:
            OSError: the folder cannot be written.
        """
        self._dimension = dimension
        while True:
            # the time comes first so that names sort by age
            name = f"{time.time_ns():020d}-{secrets.token_hex(4)}-{dimension}"
            self.path = folder / (f".{name}" if hidden else name)
            # keys first: rows without keys are always leftovers
            self._keys: Any = open(self.path.with_suffix(KEYS), "xb", buffering=0)  # noqa: SIM115
            self._rows: Any = open(self.path.with_suffix(ROWS), "xb", buffering=0)  # noqa: SIM115
            fcntl.flock(self._keys, fcntl.LOCK_EX)
            if self.path.with_suffix(KEYS).exists():  # not swept away before it was locked
                return
            self.close()

    def append(self, keys: UInt64s, rows: Tensor) -> None:
        """Add entries; ``keys`` is ``[n, 2]``, ``rows`` float32 ``[n, dimension]`` on the CPU.

        Raises:
            OSError: the disk is full; what was written before stays good.
        """
        stored = np.zeros((len(keys), _stride(self._dimension)), dtype="<f4")
        stored[:, : self._dimension] = rows.numpy()
        records = np.zeros(len(keys), dtype=RECORD)
        records["key"], records["sum"] = keys, row_sums(stored)
        records["check"] = _record_checks(keys, records["sum"])
        _write_all(self._rows, stored.tobytes())
        _write_all(self._keys, records.tobytes())

    def publish(self) -> None:
        """Give a hidden segment its visible name: rows first, since keys make it readable."""
        visible = self.path.with_name(self.path.name.removeprefix("."))
        for stream, suffix in ((self._rows, ROWS), (self._keys, KEYS)):
            os.fsync(stream.fileno())
            os.rename(self.path.with_suffix(suffix), visible.with_suffix(suffix))
        self.path = visible

    def close(self) -> None:
        """Release the segment; it is never written again."""
        self._rows.close()
        self._keys.close()


def lock_if_idle(path: Path) -> int | None:
    """Return a descriptor that locks ``path``, or ``None`` while a live process holds it.

    The caller closes the descriptor.
    """
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _write_all(stream: Any, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[stream.write(view) :]
