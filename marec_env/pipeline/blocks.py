"""Feature blocks: one score per candidate each, larger is better.

A block is a function ``(request, candidates int64 [B, C]) -> float32 [B, C]``. Scores are brought
to zero mean and unit spread within the candidates, so that ranking weights are comparable.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from marec_env.pipeline.lookup import look_up
from marec_env.pipeline.request import Request
from marec_env.registry import Registry

__all__ = ["BLOCKS", "Block", "standardised"]

Block = Callable[[Request, Tensor], Tensor]
BLOCKS: Registry[Block] = Registry("feature block")

_SMALL = 1e-6  # spread below which a block says nothing


@BLOCKS.register("cf")
def cf(request: Request, candidates: Tensor) -> Tensor:
    """Profile times item in collaborative space."""
    return request.scores_of("cf", candidates)


@BLOCKS.register("text")
def text(request: Request, candidates: Tensor) -> Tensor:
    """Profile times item in text space."""
    return request.scores_of("text", candidates)


@BLOCKS.register("affinity")
def affinity(request: Request, candidates: Tensor) -> Tensor:
    """How much more than others the user favours the item's topic."""
    return request.affinity.gather(1, request.topics_of(candidates))


@BLOCKS.register("popularity")
def popularity(request: Request, candidates: Tensor) -> Tensor:
    """Share of users who consumed the item, a proxy of quality."""
    if candidates is request.candidates:
        return request.candidate_popularity
    return look_up(request.knowledge.popularity, candidates)


@BLOCKS.register("freshness")
def freshness(request: Request, candidates: Tensor) -> Tensor:
    """How new the item is, by rank."""
    if candidates is request.candidates:
        return request.candidate_freshness
    return look_up(request.knowledge.freshness, candidates)


@BLOCKS.register("exposure")
def exposure(request: Request, candidates: Tensor) -> Tensor:
    """How little of the item's topic was shown of late."""
    return -request.memory.exposure.gather(1, request.topics_of(candidates))


def standardised(scores: Tensor) -> Tensor:
    """Return ``[..., C]`` scores with zero mean and unit spread per row; 0 where all are equal."""
    centred = scores - scores.mean(-1, keepdim=True)
    spread = centred.square().mean(-1, keepdim=True).sqrt_()
    factor = torch.where(spread > _SMALL, 1.0 / spread.clamp_(min=_SMALL), 0.0)
    return centred.mul_(factor)
