"""The state of many sessions: a row of every table for each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Tables", "flat"]

_FIRST = 16


def flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Tensor]:
    """Return the tensors of nested mappings by their paths."""
    found: dict[str, Tensor] = {}
    for name, value in tree.items():
        place = f"{path}{name}"
        found |= flat(value, f"{place}/") if isinstance(value, Mapping) else {place: value}
    return found


class Tables:
    """Tensors ``[slots, ...]`` by path; they grow as slots are claimed."""

    def __init__(self, device: torch.device) -> None:
        """``device``: of the tensors."""
        self._device = device
        self._tables: dict[str, Tensor] = {}
        self._count = _FIRST
        self._free = list(range(_FIRST))[::-1]

    def claim(self) -> int:
        """Return a free slot; its rows are zeros."""
        if not self._free:
            for name, table in self._tables.items():
                self._tables[name] = torch.cat([table, torch.zeros_like(table)])
            self._free = list(range(self._count, 2 * self._count))[::-1]
            self._count *= 2
        slot = self._free.pop()
        for table in self._tables.values():
            table[slot] = 0
        return slot

    def release(self, slot: int) -> None:
        """Let a slot be claimed again."""
        self._free.append(slot)

    def take(self, rows: Tensor, section: str) -> dict[str, Any]:
        """Return the rows of all tables below a path, int64 ``[n]``, as nested mappings."""
        found: dict[str, Any] = {}
        for name, table in self._tables.items():
            first, *path = name.split("/")
            if first != section:
                continue
            inner = found
            for part in path[:-1]:
                inner = inner.setdefault(part, {})
            inner[path[-1]] = table.index_select(0, rows)
        return found

    def put(self, values: Mapping[str, Tensor], slots: Tensor) -> None:
        """Write the first of ``values``, ``[n, ...]`` each, to these slots, int64 ``[<= n]``."""
        for name, value in values.items():
            if name not in self._tables:
                self._tables[name] = value.new_zeros(self._count, *value.shape[1:])
            self._tables[name].index_copy_(0, slots, value[: len(slots)])

    def packed(self, slots: Tensor, without: str) -> list[bytes]:
        """Return the rows of these slots as bytes, one each: of all tables but a section."""
        parts = [
            np.ascontiguousarray(self._tables[name].index_select(0, slots).cpu().numpy())
            for name in self._names(without)
        ]
        rows = [part.reshape(len(slots), -1).view(np.uint8) for part in parts if part.size]
        layout = self._layout(without)
        return [layout + row.tobytes() for row in np.concatenate(rows, axis=1)]

    def unpack(self, packed: bytes, slot: int, without: str) -> bool:
        """Write what :meth:`packed` returned into a slot; ``False`` if the tables are others."""
        layout = self._layout(without)
        if not packed.startswith(layout):
            return False
        place = len(layout)
        for name in self._names(without):
            row = self._tables[name][slot]
            size = row.numel() * row.element_size()
            if size:
                values = torch.frombuffer(bytearray(packed[place : place + size]), dtype=row.dtype)
                row.copy_(values.view(row.shape))
            place += size
        return True

    def _names(self, without: str) -> list[str]:
        return sorted(name for name in self._tables if not name.startswith(without))

    def _layout(self, without: str) -> bytes:
        told = [
            (name, str(self._tables[name].dtype), list(self._tables[name].shape[1:]))
            for name in self._names(without)
        ]
        return hashlib.blake2b(repr(told).encode(), digest_size=8).digest()
