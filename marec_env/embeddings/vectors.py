"""Vectors of a corpus that need not lie in memory as one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from marec_env.memory import require_memory

BLOCK = 1 << 16
"""Rows worked on at a time."""
_QUERIES = 4096  # compared with all items at once, to bound memory


def room_for(texts: int, dimension: int) -> tuple[int, int]:
    """Return the shape of so many vectors.

    Raises:
        ConfigError: they do not fit into memory.
    """
    what = f"embeddings of {texts:,} texts in {dimension} dimensions"
    require_memory(what, texts * dimension * 4.0, "embed fewer")
    return texts, dimension


def nearest(queries: Tensor, items: Tensor, count: int, own: Tensor | None = None) -> Tensor:
    """Return the items of largest product with each query, int64 ``[Q, count]`` (fewer where there
    are fewer), largest first; ``own``, int64 ``[Q]``, is left out. Where vectors are zeros nothing
    is known: such a query has no item and such an item no query, and -1 stands in their place.
    """
    found, unknown = [], ~items.any(dim=1)
    for start in range(0, len(queries), _QUERIES):
        some = queries[start : start + _QUERIES]
        scores = (some @ items.T).masked_fill_(unknown, -torch.inf)
        if own is not None:
            scores.scatter_(1, own[start : start + _QUERIES, None], -torch.inf)
        best = scores.topk(min(count, len(items) - (own is not None)), dim=1)
        real = (best.values > -torch.inf) & some.any(dim=1, keepdim=True)
        found.append(torch.where(real, best.indices, -1))
    return torch.cat(found)


class Vectors:
    """``N`` rows of ``D`` numbers, read where they are: in parts, each a tensor whose memory may be
    a file of the cache (mapped, so that the system takes its pages back when it needs them).
    """

    def __init__(self, parts: Sequence[Tensor], order: Tensor | None = None) -> None:
        """Args:
        parts: float32 ``[n, D]`` each, of equal ``n`` but for the last.
        order: int64 ``[N]``, the rows of the parts, one behind the other, that are meant; ``None``:
            all, in their order.
        """
        self._parts, self._order = parts, order
        rows = sum(map(len, parts)) if order is None else len(order)
        self.shape = (rows, parts[0].shape[1])
        self.device = parts[0].device

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield the rows, ``size`` at a time, as :meth:`torch.Tensor.split` does."""
        for first in range(0, self.shape[0], size):
            yield self._rows(first, min(first + size, self.shape[0]))

    def whole(self) -> Tensor:
        """Return one table, float32 ``[N, D]``.

        Raises:
            ConfigError: it does not fit into memory.
        """
        if len(self._parts) == 1:
            return self._parts[0] if self._order is None else self._parts[0][self._order]
        out = torch.empty(room_for(*self.shape))
        for first, rows in zip(range(0, len(out), BLOCK), self.split(BLOCK), strict=True):
            out[first : first + BLOCK] = rows
        return out

    def _rows(self, first: int, last: int) -> Tensor:
        if len(self._parts) == 1 and self._order is None:
            return self._parts[0][first:last]
        rows = torch.arange(first, last) if self._order is None else self._order[first:last]
        part, place = rows // len(self._parts[0]), rows % len(self._parts[0])
        out = torch.empty(len(rows), self.shape[1])
        for number in sorted(set(part.tolist())):
            mine = part == number
            out[mine] = self._parts[number][place[mine]]
        return out
