"""Tables looked up by item, several times as fast as indexing on the CPU."""

from __future__ import annotations

from torch import Tensor

__all__ = ["look_up"]


def look_up(table: Tensor, items: Tensor) -> Tensor:
    """Return ``table[items]`` for ``[N, ...]`` and int64 ``[B, M]``: ``[B, M, ...]``."""
    return table.index_select(0, items.flatten()).view(*items.shape, *table.shape[1:])
