"""The state of many sessions: a row of bytes for each, which holds a part of every table."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marec_env.compiled import compiled

_FIRST = 16
_ALIGNED = 64  # bytes, as torch's tensors are: products of others may round otherwise


def flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Tensor]:
    """Return the tensors of nested mappings by their paths."""
    found: dict[str, Tensor] = {}
    for name, value in tree.items():
        place = f"{path}{name}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{place}/")
        else:
            found[place] = value
    return found


@dataclass(frozen=True, slots=True)
class _Table:
    dtype: torch.dtype
    shape: tuple[int, ...]
    """Of a row."""
    size: int
    """Bytes of a row."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Tensors ``[n, ...]`` of all tables in one block of memory."""

    host: Tensor
    device: Tensor
    """The same on the device that they are given out on."""
    tables: dict[str, Tensor]
    """Parts of it."""
    places: NDArray[np.int64]
    """Where each begins."""


class Tables:
    """Tensors ``[slots, ...]`` by path; they grow as slots are claimed, and take in what is put
    first.

    A slot's row is one record (array of structs): a session comes and goes in one copy, and what
    is kept of it on disk is its bytes.
    """

    def __init__(self, device: torch.device, apart: str) -> None:
        """Args:
        device: of the tensors that are given out.
        apart: the section (first part of the path) that :meth:`packed` leaves out.
        """
        self._device = device
        self._apart = f"{apart}/"
        self._tables: dict[str, _Table] = {}
        self._rows = np.zeros((_FIRST, 0), np.uint8)
        self._free = list(range(_FIRST))[::-1]
        self._lay_out()

    def claim(self) -> int:
        """Return a free slot; its rows are zeros."""
        if not self._free:
            count = len(self._rows)
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
            self._free = list(range(count, 2 * count))[::-1]
        slot = self._free.pop()
        self._rows[slot] = 0
        return slot

    def release(self, slot: int) -> None:
        """Let a slot be claimed again."""
        self._free.append(slot)

    def take(self, slots: Sequence[int]) -> dict[str, Any]:
        """Return these slots' rows of all tables as nested mappings; the tensors are filled anew
        when as many rows are taken or put again.
        """
        batch = self._batch(len(slots))
        _gather(
            self._rows, np.array(slots), self._starts, self._sizes, batch.places, batch.host.numpy()
        )
        if batch.device is not batch.host:
            batch.device.copy_(batch.host)
        found: dict[str, Any] = {}
        for name, value in batch.tables.items():
            *path, last = name.split("/")
            inner = found
            for part in path:
                inner = inner.setdefault(part, {})
            inner[last] = value
        return found

    def put(self, values: Mapping[str, Tensor], slots: Sequence[int]) -> None:
        """Write the first of ``values``, ``[n, ...]`` each, to these slots, at most ``n``."""
        new = {name: value for name, value in values.items() if name not in self._tables}
        if new:
            self._make(new)
        batch = self._batch(len(next(iter(values.values()))))
        for name, value in values.items():
            if value is not batch.tables[name]:
                batch.tables[name].copy_(value)
        if batch.device is not batch.host:
            batch.host.copy_(batch.device)
        which = np.array([self._order[name] for name in values])
        _scatter(
            self._rows, np.array(slots), self._starts[which], self._sizes[which],
            batch.places[which], batch.host.numpy(),
        )  # fmt: skip

    def packed(self, slots: Sequence[int]) -> list[bytes]:
        """Return the rows of these slots as bytes, one each: of all but the section apart."""
        return [self._layout + self._rows[slot, self._others :].tobytes() for slot in slots]

    def unpack(self, packed: bytes, slot: int) -> bool:
        """Write what :meth:`packed` returned into a slot; ``False`` if the tables are others."""
        if not packed.startswith(self._layout):
            return False
        self._rows[slot, self._others :] = np.frombuffer(packed, np.uint8)[len(self._layout) :]
        return True

    def _make(self, values: Mapping[str, Tensor]) -> None:
        """Add a table for each of these values, ``[n, ...]``."""
        before, rows = dict(zip(self._tables, self._starts, strict=True)), self._rows
        for name, value in values.items():
            size = value.element_size() * value[0].numel()
            self._tables[name] = _Table(value.dtype, tuple(value.shape[1:]), size)
        self._lay_out()
        self._rows = np.zeros((len(rows), int(self._sizes.sum())), np.uint8)
        for name, start in before.items():
            size, now = self._tables[name].size, self._starts[self._order[name]]
            self._rows[:, now : now + size] = rows[:, start : start + size]

    def _lay_out(self) -> None:
        """Say where in a row each table's part is: the section apart comes first."""
        names = sorted(self._tables, key=lambda name: (not name.startswith(self._apart), name))
        self._tables = {name: self._tables[name] for name in names}
        self._order = {name: place for place, name in enumerate(names)}
        self._sizes = np.array([table.size for table in self._tables.values()], np.int64)
        self._starts = np.cumsum(self._sizes) - self._sizes
        kept = {n: table for n, table in self._tables.items() if not n.startswith(self._apart)}
        self._others = int(self._sizes.sum()) - sum(table.size for table in kept.values())
        told = [(name, str(table.dtype), list(table.shape)) for name, table in kept.items()]
        self._layout = hashlib.blake2b(repr(told).encode(), digest_size=8).digest()
        self._batches: dict[int, _Batch] = {}

    def _batch(self, rows: int) -> _Batch:
        """Return the tensors of so many rows."""
        if rows not in self._batches:
            sizes = -(-rows * self._sizes // _ALIGNED) * _ALIGNED
            places = np.cumsum(sizes) - sizes
            host = torch.zeros(int(sizes.sum()), dtype=torch.uint8)
            device = host.to(self._device)
            tables = {
                name: device[place : place + rows * table.size]
                .view(table.dtype)
                .view(rows, *table.shape)
                for (name, table), place in zip(self._tables.items(), places.tolist(), strict=True)
            }
            self._batches[rows] = _Batch(host, device, tables, places)
        return self._batches[rows]


@compiled
def _gather(
    rows: NDArray[np.uint8],
    slots: NDArray[np.int64],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    places: NDArray[np.int64],
    block: NDArray[np.uint8],
) -> None:
    """Copy parts of rows, which begin at ``starts``, side by side to ``places`` of a block."""
    for table in range(len(sizes)):
        start, size, place = starts[table], sizes[table], places[table]
        for slot in slots:
            block[place : place + size] = rows[slot, start : start + size]
            place += size


@compiled
def _scatter(
    rows: NDArray[np.uint8],
    slots: NDArray[np.int64],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    places: NDArray[np.int64],
    block: NDArray[np.uint8],
) -> None:
    """Copy them back."""
    for table in range(len(sizes)):
        start, size, place = starts[table], sizes[table], places[table]
        for slot in slots:
            rows[slot, start : start + size] = block[place : place + size]
            place += size
