"""What came of a request: the raw material of every reward term."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from marec_env.pipeline.request import Request
from marec_env.users.base import Feedback

__all__ = ["Outcome", "Truth"]

_SMALL = 1e-6
_HEAD = 2  # times top_count: how much of the list is looked at first


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
    """Float32 ``[B, N]``: the memory's penalty before the slate was shown (negative where seen);
    the memory's own tensor, so terms must be computed before it learns of the slate."""
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
        truth = self.truth
        member = torch.zeros_like(self.seen_before, dtype=torch.bool).scatter_(1, items, True)
        head = truth.top[:, : _HEAD * truth.top_count]  # enough unless most of it was seen
        found, wanted = self._found(member, self.seen_before, head)
        if head.shape[1] < truth.top.shape[1]:
            rows = (wanted < truth.top_count).nonzero().squeeze(1)
            if rows.numel():
                more = self._found(member[rows], self.seen_before[rows], truth.top[rows])
                found[rows], wanted[rows] = more
        return found / wanted.clamp(min=1)

    def _found(self, member: Tensor, seen: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
        """Return how many of the best unseen items are members, and how many there are."""
        wanted = seen.gather(1, top) >= 0
        rank = wanted.cumsum(1)
        wanted.logical_and_(rank <= self.truth.top_count)
        count = rank[:, -1].clamp(max=self.truth.top_count)
        return (member.gather(1, top) & wanted).sum(1), count


def correlation(scores: Tensor, target: Tensor) -> Tensor:
    """Return Pearson's correlation along dim 1, float32 ``[B]``; 0 where either is constant."""
    a = scores - scores.mean(1, keepdim=True)
    b = target - target.mean(1, keepdim=True)
    spread = a.square().sum(1).sqrt() * b.square().sum(1).sqrt()
    return torch.where(spread > _SMALL, (a * b).sum(1) / spread.clamp(min=_SMALL), 0.0)


def logit(probability: Tensor) -> Tensor:
    """Return log-odds, safe at 0 and 1."""
    return torch.logit(probability, eps=_SMALL)
