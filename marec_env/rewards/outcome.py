"""What came of a request: the raw material of every reward term."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marec_env.compiled import compiled
from marec_env.pipeline.request import Request
from marec_env.users.base import Feedback

__all__ = ["Outcome", "Truth"]

_SMALL = 1e-6


@dataclass(frozen=True)
class Truth:
    """The users' hidden state just before they answered; objectives may use it, components not."""

    candidate_probability: Tensor
    """Float32 ``[B, C]``: click probability, if examined, of each candidate."""
    probe: Tensor
    """Int64 ``[B, P]``: items that no component chose, drawn anew for each request."""
    probe_probability: Tensor
    """Float32 ``[B, P]``: click probability, if examined, of each probe item."""
    top: Tensor
    """Int64 ``[B, M]``: the items most relevant to the user's lasting taste, best first, among
    those not known at the episode's start."""
    top_count: int
    """How many of the unseen ones among ``top`` recall should find."""


@dataclass(frozen=True)
class Outcome:
    """One answered request of ``B`` sessions."""

    request: Request
    feedback: Feedback
    truth: Truth
    seen_before: Tensor
    """Bool ``[B, N]``: what the memory had seen before the slate was shown; its own tensor, so
    terms must be computed before it learns of the slate."""
    attributes: dict[str, Tensor]
    """The catalog's further numbers, ``[N]`` each."""

    @property
    def slate(self) -> Tensor:
        """Int64 ``[B, K]``."""
        assert self.request.slate is not None
        return self.request.slate

    def share_found(self, items: Tensor) -> Tensor:
        """Return the share of the user's best unseen items that is among ``items`` ``[B, M]``.

        The best are the first ``top_count`` of ``truth.top`` that were still unseen; where fewer
        are left, those.
        """
        top, count = self.truth.top, self.truth.top_count
        if not items.is_cpu:
            found, wanted = _found_by_table(items, top, self.seen_before, count)
        else:
            found, wanted = torch.empty(2, len(items), dtype=torch.int64)
            _find(
                items.numpy(),
                top.numpy(),
                self.seen_before.numpy(),
                count,
                found.numpy(),
                wanted.numpy(),
            )
        return found / wanted.clamp(min=1)


@compiled
def _find(
    items: NDArray[np.int64],
    top: NDArray[np.int64],
    seen: NDArray[np.bool_],
    count: int,
    found: NDArray[np.int64],
    wanted: NDArray[np.int64],
) -> None:
    """Count the first ``count`` unseen items of each row of ``top``, and those among ``items``."""
    member = np.zeros(seen.shape[1], np.bool_)
    for session in range(len(items)):
        for item in items[session]:
            member[item] = True
        found[session] = wanted[session] = 0
        for item in top[session]:
            if wanted[session] == count:
                break
            if not seen[session, item]:
                wanted[session] += 1
                found[session] += member[item]
        for item in items[session]:
            member[item] = False


def _found_by_table(items: Tensor, top: Tensor, seen: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return what :func:`_find` counts, in tensor operations."""
    member = torch.zeros_like(seen).scatter_(1, items, True)
    unseen = ~seen.gather(1, top)
    rank = unseen.cumsum(1)
    unseen.logical_and_(rank <= count)
    return (member.gather(1, top) & unseen).sum(1), rank[:, -1].clamp(max=count)


def correlation(scores: Tensor, target: Tensor) -> Tensor:
    """Return Pearson's correlation along dim 1, float32 ``[B]``; 0 where either is constant."""
    a = scores - scores.mean(1, keepdim=True)
    b = target - target.mean(1, keepdim=True)
    spread = a.square().sum(1).sqrt() * b.square().sum(1).sqrt()
    return torch.where(spread > _SMALL, (a * b).sum(1) / spread.clamp(min=_SMALL), 0.0)


def logit(probability: Tensor) -> Tensor:
    """Return log-odds, safe at 0 and 1."""
    return torch.logit(probability, eps=_SMALL)
