"""A cache of vectors that any number of processes may fill and read at once.

A store is a folder of segments (see :mod:`marec_env.embeddings.segment`). There is no shared
index to corrupt: a reader builds its own from the segments' keys. Writers never wait for one
another. Merging and eviction happen under a lock that is only ever tried, never waited for.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marec_env.embeddings.housekeeping import merge_small_segments
from marec_env.embeddings.segment import KEYS, RECORD, Segment, SegmentWriter, UInt64s

__all__ = ["Store", "keys_of", "unique_rows"]

_LOG = logging.getLogger(__name__)
_KEY_BYTES = 16
_SCANS = 5  # a scan is repeated when a segment is merged away under it


def keys_of(contents: Iterable[bytes]) -> UInt64s:
    """Return 128-bit BLAKE2b keys of the contents, uint64 ``[N, 2]``."""
    digest = hashlib.blake2b
    joined = b"".join([digest(item, digest_size=_KEY_BYTES).digest() for item in contents])
    return np.frombuffer(joined, dtype="<u8").reshape(-1, 2)


class Store:
    """The vectors of one space: same weights, tokenizer, pooling, length and precision."""

    def __init__(self, folder: Path) -> None:
        """Args:
        folder: need not exist; it is made when something is written.
        """
        self.folder = folder
        self._segments: dict[str, Segment] = {}
        self._writer: SegmentWriter | None = None
        self._used: set[str] = set()
        self._writable = True
        self._lock = threading.RLock()
        self._index: tuple[UInt64s, UInt64s, NDArray[np.int64], NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """The sound entries at the last look, superseded ones included."""
        return 0 if self._index is None else len(self._index[0])

    def lookup(self, keys: UInt64s) -> tuple[Tensor, NDArray[np.bool_]]:
        """Return what the store holds now.

        Args:
            keys: uint64 ``[N, 2]``.

        Returns:
            float32 ``[N, D]`` and bool ``[N]``, true where the entry was found and is sound; other
            rows hold nothing of meaning. Where all entries lie in a row in one segment, the tensor
            is a memory map of the file. D is 0 if nothing was found.
        """
        with self._lock:
            self._scan()
            while True:
                segment, place = self._find(keys)
                vectors, damaged = self._gather(segment, place)
                if not damaged:
                    names = sorted(self._segments)
                    self._used.update(names[number] for number in np.unique(segment[segment >= 0]))
                    return vectors, segment >= 0
                for name, places in damaged.items():
                    _LOG.warning(
                        "cache segment %s: %d damaged entries are embedded again",
                        self._segments[name].path,
                        len(places),
                    )
                    self._strike_out(name, places)

    def append(self, keys: UInt64s, vectors: Tensor) -> None:
        """Add entries; a disk that is full or read-only costs the cache, not the run."""
        with self._lock:
            if not self._writable or not len(keys):
                return
            try:
                if self._writer is None:
                    self.folder.mkdir(parents=True, exist_ok=True)
                    self._writer = SegmentWriter(self.folder, vectors.shape[1])
                self._writer.append(keys, vectors)
            except OSError as error:
                _LOG.warning("cannot write the cache at %s: %s; going on", self.folder, error)
                self._writable = False

    def close(self) -> None:
        """End this process's segment and, if there are many small ones, merge them."""
        with self._lock:
            if self._writer is None:
                return
            self._writer.close()
            self._writer = None
            merge_small_segments(self.folder)

    def touch(self) -> None:
        """Mark the segments that were read from as used now, which eviction goes by."""
        with self._lock:
            for name in self._used:
                try:
                    os.utime(self.folder / f"{name}{KEYS}")
                except OSError:  # evicted meanwhile, or a read-only folder: nothing depends on it
                    continue

    def _scan(self) -> None:
        """Open segments that are new or have grown, and rebuild the index if any has."""
        changed = self._index is None
        for _ in range(_SCANS):
            merged_away = False
            names = self._visible()
            for name in self._segments.keys() - set(names):
                del self._segments[name]
                changed = True
            for name in names:
                try:
                    keys = self.folder / f"{name}{KEYS}"
                    known = self._segments.get(name)
                    if known is None or known.entries < keys.stat().st_size // RECORD.itemsize:
                        self._segments[name] = Segment(self.folder / name)
                        changed = True
                except FileNotFoundError:
                    merged_away = True
            if not merged_away:
                break
        if changed:
            self._rebuild()

    def _visible(self) -> list[str]:
        """Return the names of the segments in the folder."""
        try:
            found = os.listdir(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [
            name.removesuffix(KEYS)
            for name in found
            if name.endswith(KEYS) and not name.startswith(".")
        ]

    def _rebuild(self) -> None:
        """Sort all sound entries by key; of equal keys the newest segment's comes last."""
        keys, owners, places = [], [], []
        for number, name in enumerate(sorted(self._segments)):
            sound = np.flatnonzero(self._segments[name].sound())
            keys.append(self._segments[name].keys[sound])
            owners.append(np.full(len(sound), number, dtype=np.int64))
            places.append(sound)
        if not keys:
            self._index = None
            return
        flat = np.concatenate(keys)
        order = np.argsort(flat[:, 0], kind="stable")
        self._index = (
            flat[order, 0],
            flat[order, 1],
            np.concatenate(owners)[order],
            np.concatenate(places)[order],
        )

    def _find(self, keys: UInt64s) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return each key's segment number (-1: none) and place in it."""
        missing = np.full(len(keys), -1, dtype=np.int64)
        if self._index is None or not len(self._index[0]):
            return missing, missing.copy()
        first, second, owners, places = self._index
        near = np.searchsorted(first, keys[:, 0], side="right") - 1
        hit = (near >= 0) & (first[near] == keys[:, 0]) & (second[near] == keys[:, 1])
        return np.where(hit, owners[near], -1), np.where(hit, places[near], -1)

    def _gather(
        self, segment: NDArray[np.int64], place: NDArray[np.int64]
    ) -> tuple[Tensor, dict[str, NDArray[np.int64]]]:
        """Return the rows found and, by segment, the places of damaged ones."""
        names = sorted(self._segments)
        used = np.unique(segment)
        damaged: dict[str, NDArray[np.int64]] = {}
        if len(used) == 1 and used[0] >= 0:
            name = names[int(used[0])]
            rows, bad = self._segments[name].read(place)
            return rows, {name: bad} if len(bad) else {}
        out: Tensor | None = None
        for number in used[used >= 0].tolist():
            chosen = np.flatnonzero(segment == number)
            rows, bad = self._segments[names[number]].read(place[chosen])
            if len(bad):
                damaged[names[number]] = bad
            if out is None:
                out = torch.zeros(len(segment), rows.shape[1])
            out[torch.from_numpy(chosen)] = rows
        return (torch.zeros(len(segment), 0) if out is None else out), damaged

    def _strike_out(self, name: str, places: NDArray[np.int64]) -> None:
        segment = self._segments[name]
        segment.records["check"][places] = 0
        try:
            segment.strike_out(places)
        except OSError as error:  # a read-only cache: this process still passes them over
            _LOG.warning("cannot repair cache segment %s: %s", segment.path, error)
        self._rebuild()


def unique_rows(keys: UInt64s) -> tuple[Sequence[int], NDArray[np.int64]]:
    """Return the first place of each distinct key, in order, and each key's number among them."""
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order].tolist(), rank[inverse.reshape(-1)]
