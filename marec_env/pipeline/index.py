"""An approximate index for large catalogs (extra ``ann``): nearest items by inner product.

An inverted file (faiss ``IndexIVFFlat``): k-means divides the items into lists, and a query is
compared with the items of the lists nearest to it only. Scores of the items found are exact; some
of the true nearest may be missing, as never happens in the search of all items
(:mod:`marec_env.pipeline.selection`). The division has a fixed seed: the same knowledge gives the
same items.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from marec_env.errors import ConfigError

if TYPE_CHECKING:
    from marec_env.pipeline.knowledge import Knowledge
    from marec_env.pipeline.memory import SessionMemory

__all__ = ["nearest_unseen", "require_faiss"]

_LISTS = 4  # times the root of N, as the faiss guidelines advise below a million items
_PROBED = 1 / 16  # share of the lists that a query is compared with
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


def _built(knowledge: Knowledge, space: str) -> Any:
    """Return the index of a space (``cf`` or ``text``), kept with the knowledge."""
    if space not in knowledge.indexes:
        faiss = require_faiss()
        vectors = getattr(knowledge, space).cpu().contiguous().numpy()
        lists = max(1, int(_LISTS * math.sqrt(len(vectors))))
        index = faiss.index_factory(
            vectors.shape[1], f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT
        )
        index.cp.seed = _SEED
        index.train(vectors)
        index.add(vectors)
        index.nprobe = max(1, math.ceil(_PROBED * lists))
        knowledge.indexes[space] = index
    return knowledge.indexes[space]


def nearest_unseen(
    knowledge: Knowledge, memory: SessionMemory, space: str, profile: Tensor, length: int
) -> Tensor:
    """Return the unseen items nearest to each profile among those that the index finds.

    As many more are fetched as the session with the longest past has seen, so that seen ones may
    be struck out.

    Args:
        knowledge, memory: of the request.
        space: ``cf`` or ``text``.
        profile: float32 ``[B, d]`` in that space.
        length: how many.

    Returns:
        Int64 ``[B, length]``, best first, -1 where the index found no more.
    """
    seen_at_most = memory.history_length + memory.requests * memory.session_items.shape[2]
    fetched = min(length + int(seen_at_most.max()), knowledge.num_items)
    _, found = _built(knowledge, space).search(profile.cpu().contiguous().numpy(), fetched)
    items = torch.from_numpy(found).to(profile.device)
    left_out = (items < 0) | memory.seen.gather(1, items.clamp(min=0))
    items = torch.where(left_out, -1, items)
    unseen_first = left_out.to(torch.int8).argsort(dim=1, stable=True)[:, :length]
    return items.gather(1, unseen_first)
