"""The state of many sessions: a row of every table for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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

    def row(self, slot: int) -> dict[str, Tensor]:
        """Return a copy of a slot's row of every table."""
        return {name: table[slot].clone() for name, table in self._tables.items()}
