"""Recall channels: each offers unseen items in its own order of preference.

A channel is a function ``(request, length) -> int64 [B, L]`` of items, best first; -1 where it has
no more to offer. It need not leave out items that other channels offer too, nor (if it lists items
from a fixed order) seen ones: :mod:`marec_env.pipeline.recall_merge` takes care of both. A built-in
channel offers no item twice; a user's own (``package.module:function``) may. A channel is called in
those requests only in which some session wants its items.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from marec_env import random
from marec_env.pipeline import index
from marec_env.pipeline.lookup import look_up
from marec_env.pipeline.recall_merge import first_occurrences
from marec_env.pipeline.request import Request
from marec_env.pipeline.topk import row_blocks, top_k
from marec_env.registry import Registry

__all__ = ["CHANNELS", "Channel"]

Channel = Callable[[Request, int], Tensor]
CHANNELS: Registry[Channel] = Registry("recall channel")

_FIXED_ORDER_DEPTH = 3  # times C: how deep a fixed order is read, since its head may be seen


def _nearest(request: Request, space: str, length: int) -> Tensor:
    knowledge = request.knowledge
    if index.is_used(request.config.recall, knowledge.num_items):
        profile = getattr(request, f"profile_{space}")
        return index.nearest_unseen(knowledge, request.memory, space, profile, length)
    return request.best_unseen(getattr(request, f"{space}_scores"), length)


@CHANNELS.register("cf")
def collaborative(request: Request, length: int) -> Tensor:
    """Nearest items to the profile in the recommender's collaborative space."""
    return _nearest(request, "cf", length)


@CHANNELS.register("text")
def text(request: Request, length: int) -> Tensor:
    """Nearest items to the profile in text space."""
    return _nearest(request, "text", length)


def _best_by(request: Request, score: Callable[[slice], Tensor], length: int) -> Tensor:
    """Return the best unseen items by scores made for a few sessions at a time, in cache.

    Args:
        request: the open request.
        score: from rows to float32 ``[rows, N]``.
        length: items wanted.
    """
    seen = request.memory.seen
    blocks = row_blocks(request.num_sessions, request.knowledge.num_items)
    return torch.cat([top_k(score(rows), length, excluded=seen[rows]) for rows in blocks])


@CHANNELS.register("diverse")
def diverse(request: Request, length: int) -> Tensor:
    """Items near the profile in both spaces, from topics that were shown little of late."""
    penalty = request.config.recall.topic_penalty
    exposure, topics = request.memory.exposure, request.knowledge.items_of_topic

    def score(rows: slice) -> Tensor:
        both = request.cf_scores[rows] + request.text_scores[rows]
        return both.addmm_(exposure[rows], topics, beta=0.5, alpha=-penalty)

    return _best_by(request, score, length)


@CHANNELS.register("affinity")
def affinity(request: Request, length: int) -> Tensor:
    """Items near the profile in the collaborative space, from the user's favourite topics."""
    weight, topics = request.config.recall.affinity_weight, request.knowledge.items_of_topic

    def score(rows: slice) -> Tensor:
        liked = request.affinity[rows]
        return torch.addmm(request.cf_scores[rows], liked, topics, alpha=weight)

    return _best_by(request, score, length)


@CHANNELS.register("item_to_item")
def item_to_item(request: Request, length: int) -> Tensor:
    """Neighbours of the latest clicked items: everyone's first neighbour, then the second, ..."""
    recent = request.memory.recent  # [B, R]
    offered = look_up(request.knowledge.neighbours, recent.clamp(min=0))  # [B, R, M]
    offered = torch.where((recent >= 0).unsqueeze(-1), offered, -1)
    return first_occurrences(offered.transpose(1, 2).flatten(1), request.knowledge.num_items)


@CHANNELS.register("popular")
def popular(request: Request, length: int) -> Tensor:
    """The catalog by popularity, the same for everyone."""
    depth = min(_FIXED_ORDER_DEPTH * length, request.knowledge.num_items)
    return request.knowledge.by_popularity[:depth].expand(request.num_sessions, -1)


@CHANNELS.register("fresh")
def fresh(request: Request, length: int) -> Tensor:
    """A random walk through the newest share of the catalog: exploration."""
    knowledge = request.knowledge
    share = request.config.recall.fresh_share
    pool = min(knowledge.num_items, max(length, int(share * knowledge.num_items)))
    walks = knowledge.walks(pool)
    draws = random.integers(request.keys, request.step, "pipeline/fresh", 2, 1 << 30)
    depth = min(_FIXED_ORDER_DEPTH * length, pool)
    # A window of the walk that begins at a drawn place.
    windows = walks.unfold(1, depth, 1)
    return windows[draws[:, 1] % walks.shape[0], draws[:, 0] % pool]
