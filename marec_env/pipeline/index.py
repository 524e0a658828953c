"""An approximate index for large catalogs (extra ``ann``): nearest items by inner product.

What a channel ranks by is the product of a query with an item's vector in one of :data:`SPACES`; a
bonus by topic is one with the topic's indicator. An inverted file (faiss ``IndexIVFFlat``): k-means
divides the items into lists, and a query is compared with the items of the lists nearest to it
only. Scores of the items found are exact; some of the true nearest may be missing, as never happens
in the search of all items (:mod:`marec_env.pipeline.selection`). The division has a fixed seed: the
same knowledge gives the same items. It is what takes long, and is kept with a bundle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from marec_env.errors import ConfigError, DataError
from marec_env.pipeline.selection import first_unseen

if TYPE_CHECKING:
    from marec_env.pipeline.knowledge import Knowledge
    from marec_env.pipeline.memory import SessionMemory

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


class Division(NamedTuple):
    """How an index divides ``N`` items into lists."""

    centres: Tensor
    """Float32 ``[lists, d]``."""
    lists: Tensor
    """Int32 ``[N]``, the list of each item."""


def _joined(tables: Sequence[Tensor], rows: Tensor) -> Any:
    return torch.cat([table[rows] for table in tables], dim=1).numpy()


def _empty(size: int, lists: int) -> Any:
    """Return an index of no items whose vectors have ``size`` numbers."""
    faiss = require_faiss()
    index = faiss.index_factory(size, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.nprobe = min(max(1, math.ceil(_PROBED * lists)), _MOST_PROBED)
    return index


def _divide(tables: Sequence[Tensor]) -> Division:
    """Divide items by k-means, some seconds for a hundred thousand."""
    count, size = len(tables[0]), sum(table.shape[1] for table in tables)
    lists = max(1, int(_LISTS * math.sqrt(count)))
    index = _empty(size, lists)
    index.cp.seed, index.cp.niter = _SEED, _ITERATIONS
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, _POINTS
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(_SEED))
    index.train(_joined(tables, drawn[: lists * _POINTS]))
    nearest = [
        torch.from_numpy(index.quantizer.search(_joined(tables, rows), 1)[1][:, 0])
        for rows in torch.split(torch.arange(count), _ADDED)
    ]
    centres = torch.from_numpy(index.quantizer.reconstruct_n(0, lists))
    return Division(centres, torch.cat(nearest).to(torch.int32))


def build_index(tables: Sequence[Tensor], division: Division | None = None) -> Any:
    """Return the index of items whose vectors join rows of float32 tables ``[N, d]``, divided anew
    where no division is given.
    """
    centres, lists = division or _divide(tables)
    faiss, index = require_faiss(), _empty(centres.shape[1], len(centres))
    index.quantizer.add(centres.numpy())
    index.is_trained = True
    for rows in torch.split(torch.arange(len(lists)), _ADDED):
        vectors, chosen = _joined(tables, rows), lists[rows].to(torch.int64).numpy()
        index.add_core(len(rows), faiss.swig_ptr(vectors), None, faiss.swig_ptr(chosen))
    return index


def _tables(knowledge: Knowledge, space: str) -> list[Tensor]:
    return [getattr(knowledge, name).cpu() for name in SPACES[space]]


def _division(knowledge: Knowledge, space: str) -> Division:
    if space not in knowledge.divisions:
        knowledge.divisions[space] = _divide(_tables(knowledge, space))
    return knowledge.divisions[space]


def divisions_kept(knowledge: Knowledge) -> dict[str, Tensor]:
    """Return how the items are divided in all spaces, by ``SPACE/centres`` and ``SPACE/lists``;
    what is not known yet is made.
    """
    return {
        f"{space}/{part}": value
        for space in SPACES
        for part, value in _division(knowledge, space)._asdict().items()
    }


def restore_divisions(knowledge: Knowledge, kept: Mapping[str, Tensor]) -> None:
    """Divide the items as :func:`divisions_kept` told.

    Raises:
        DataError: that was of other items or vectors, or a part is missing.
    """
    for space in SPACES:
        size = sum(getattr(knowledge, name).shape[1] for name in SPACES[space])
        parts = [kept.get(f"{space}/{part}") for part in Division._fields]
        centres, lists = (torch.zeros(0) if part is None else part for part in parts)
        fits = centres.shape[1:] == (size,) and lists.shape == (knowledge.num_items,)
        typed = (centres.dtype, lists.dtype) == (torch.float32, torch.int32)
        if not (fits and typed and 0 <= int(lists.min()) <= int(lists.max()) < len(centres)):
            raise DataError(f"space '{space}' is not divided as that of these items")
        knowledge.divisions[space] = Division(centres, lists)


def _found(knowledge: Knowledge, space: str, query: Tensor, length: int) -> Tensor:
    """Return the best items for each query, int64 ``[B, length]``: of the index kept with the
    knowledge, or of all shards.
    """
    if knowledge.shards is not None:
        return knowledge.shards.search(space, query, length)
    if space not in knowledge.indexes:
        tables, division = _tables(knowledge, space), _division(knowledge, space)
        knowledge.indexes[space] = build_index(tables, division)
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
