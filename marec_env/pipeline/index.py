"""An approximate index for large catalogs (extra ``ann``): nearest items by inner product.

What a channel ranks by is the product of a query with an item's vector in one of :data:`SPACES`; a
bonus by topic is one with the topic's indicator. An inverted file (faiss ``IndexIVFFlat``): k-means
divides the items into lists, and a query is compared with the items of the lists nearest to it
only. Scores of the items found are exact; some of the true nearest may be missing, as never happens
in the search of all items (:mod:`marec_env.pipeline.selection`). The division has a fixed seed: the
same knowledge gives the same items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from marec_env.errors import ConfigError
from marec_env.pipeline.selection import first_unseen

if TYPE_CHECKING:
    from marec_env.pipeline.knowledge import Knowledge
    from marec_env.pipeline.memory import SessionMemory

__all__ = ["SPACES", "build_index", "nearest_unseen", "require_faiss"]

SPACES = {
    "cf": ("cf",),
    "text": ("text",),
    "cf and topic": ("cf", "topic_indicator"),
    "both and topic": ("cf", "text", "topic_indicator"),
}
"""By name, the tables of :class:`Knowledge` that an item's vector joins."""
_LISTS = 4  # times the root of N, as the faiss guidelines advise below a million items
_PROBED = 1 / 16  # share of the lists that a query is compared with, but
_MOST_PROBED = 96  # so many lists at most
_POINTS, _ITERATIONS = 64, 10  # of a list's k-means: items that find it, Lloyd's rounds
_ADDED = 1 << 16  # items added at a time
_SEED = 1234


def require_faiss() -> Any:
    """Return the module ``faiss``.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise ConfigError(
            "pipeline.recall.index: 'faiss' needs the package faiss-cpu; install it with "
            "pip install 'marec[ann]', or set pipeline.recall.index: exact"
        ) from error
    return faiss


def build_index(tables: Sequence[Tensor]) -> Any:
    """Return the index of items whose vectors join rows of float32 tables ``[N, d]``."""
    faiss = require_faiss()

    def vectors(rows: Tensor) -> Any:
        return torch.cat([table[rows] for table in tables], dim=1).numpy()

    count, size = len(tables[0]), sum(table.shape[1] for table in tables)
    lists = max(1, int(_LISTS * math.sqrt(count)))
    index = faiss.index_factory(size, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.niter = _SEED, _ITERATIONS
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, _POINTS
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(_SEED))
    index.train(vectors(drawn[: lists * _POINTS]))
    for rows in torch.split(torch.arange(count), _ADDED):
        index.add(vectors(rows))
    index.nprobe = min(max(1, math.ceil(_PROBED * lists)), _MOST_PROBED)
    return index


def _found(knowledge: Knowledge, space: str, query: Tensor, length: int) -> Tensor:
    """Return the best items for each query, int64 ``[B, length]``: of the index kept with the
    knowledge, or of all shards.
    """
    if knowledge.shards is not None:
        return knowledge.shards.search(space, query, length)
    if space not in knowledge.indexes:
        tables = [getattr(knowledge, name).cpu() for name in SPACES[space]]
        knowledge.indexes[space] = build_index(tables)
    _, found = knowledge.indexes[space].search(query.cpu().contiguous().numpy(), length)
    return torch.from_numpy(found).to(query.device)


def nearest_unseen(
    knowledge: Knowledge, memory: SessionMemory, space: str, query: Tensor, length: int
) -> Tensor:
    """Return the unseen items of largest product with each query among those the index finds.

    As many more are fetched as the session with the longest past has seen, so that seen ones may
    be struck out.

    Args:
        knowledge, memory: of the request.
        space: of :data:`SPACES`.
        query: float32 ``[B, d]`` in that space.
        length: how many.

    Returns:
        Int64 ``[B, length]``, best first, -1 where the index found no more.
    """
    seen_at_most = memory.history_length + memory.requests * memory.session_items.shape[2]
    fetched = min(length + int(seen_at_most.max()), knowledge.num_items)
    return first_unseen(_found(knowledge, space, query, fetched), memory.seen, length)
