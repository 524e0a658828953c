"""The state of many sessions: a row of bytes for each, which holds a part of every table."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Tables", "flat"]

_FIRST = 16
_ALIGNED = 64  # bytes, as torch's tensors are: products of others may round otherwise


def flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Tensor]:
    """Return the tensors of nested mappings by their paths."""
    found: dict[str, Tensor] = {}
    for name, value in tree.items():
        place = f"{path}{name}"
        found |= flat(value, f"{place}/") if isinstance(value, Mapping) else {place: value}
    return found


class Tables:
    """Tensors ``[slots, ...]`` by path, of which one section is ``apart``; they grow as slots are
    claimed, and take in what is put first.

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
        self._rows = [np.zeros(_FIRST, []) for _ in range(2)]
        """Of the section apart, and of the others."""
        self._layout = b""
        self._free = list(range(_FIRST))[::-1]

    def claim(self) -> int:
        """Return a free slot; its rows are zeros."""
        if not self._free:
            count = len(self._rows[0])
            self._rows = [np.concatenate([rows, np.zeros_like(rows)]) for rows in self._rows]
            self._free = list(range(count, 2 * count))[::-1]
        slot = self._free.pop()
        for rows in self._rows:
            rows[slot] = np.zeros((), rows.dtype)
        return slot

    def release(self, slot: int) -> None:
        """Let a slot be claimed again."""
        self._free.append(slot)

    def take(self, slots: Sequence[int]) -> dict[str, Any]:
        """Return copies of these slots' rows of all tables, as nested mappings."""
        place, found = list(slots), dict[str, Any]()
        for rows in self._rows:
            taken, sizes = rows[place], dict[str, int]()
            for name in rows.dtype.names or ():
                size = len(place) * rows.dtype[name].itemsize
                sizes[name] = -(-size // _ALIGNED) * _ALIGNED
            block, first = torch.empty(sum(sizes.values()), dtype=torch.uint8).numpy(), 0
            for name, size in sizes.items():
                kind = rows.dtype[name]
                values = np.ndarray((len(place), *kind.shape), kind.base, block, first)
                values[...] = taken[name]
                *path, last = name.split("/")
                inner = found
                for part in path:
                    inner = inner.setdefault(part, {})
                inner[last] = torch.from_numpy(values).to(self._device)
                first += size
        return found

    def put(self, values: Mapping[str, Tensor], slots: Sequence[int]) -> None:
        """Write the first of ``values``, ``[n, ...]`` each, to these slots, at most ``n``."""
        given = {name: value.cpu().numpy() for name, value in values.items()}
        self._make({name: value for name, value in given.items() if name not in self})
        place = list(slots)
        for rows in self._rows:
            taken = rows[place]
            for name in rows.dtype.names or ():
                if name in given:
                    taken[name] = given[name][: len(place)]
            rows[place] = taken

    def __contains__(self, name: str) -> bool:
        return any(name in (rows.dtype.names or ()) for rows in self._rows)

    def packed(self, slots: Sequence[int]) -> list[bytes]:
        """Return the rows of these slots as bytes, one each: of all but the section apart."""
        return [self._layout + row.tobytes() for row in self._rows[1][list(slots)]]

    def unpack(self, packed: bytes, slot: int) -> bool:
        """Write what :meth:`packed` returned into a slot; ``False`` if the tables are others."""
        if not packed.startswith(self._layout):
            return False
        self._rows[1][slot] = np.frombuffer(packed[len(self._layout) :], self._rows[1].dtype)[0]
        return True

    def _make(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Add a table for each of these values, ``[n, ...]``."""
        for place, apart in enumerate((True, False)):
            before = self._rows[place]
            fields = {name: before.dtype[name] for name in before.dtype.names or ()}
            new = {
                name: np.dtype((value.dtype, value.shape[1:]))
                for name, value in values.items()
                if name.startswith(self._apart) == apart
            }
            if not new:
                continue
            rows = np.zeros(len(before), sorted({**fields, **new}.items()))
            for name in fields:
                rows[name] = before[name]
            self._rows[place] = rows
        others = self._rows[1].dtype
        told = [
            (name, f"torch.{others[name].base}", list(others[name].shape))
            for name in others.names or ()
        ]
        self._layout = hashlib.blake2b(repr(told).encode(), digest_size=8).digest()
