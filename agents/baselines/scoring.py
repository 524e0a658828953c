"""The common part of slate policies: score every item, drop what was seen, show the best."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from marec_env.evaluation.policies import RecommenderView, recommender_view
from marec_env.pipeline.topk import top_k

if TYPE_CHECKING:
    from marec_env.simulator import Simulator

__all__ = ["ScoringPolicy", "best_unseen", "liked_items", "liked_matrix"]


class ScoringPolicy(ABC):
    """A recommender that shows the ``K`` unseen items of highest score."""

    name: str
    privileged = False

    @abstractmethod
    def scores(self, view: RecommenderView) -> Tensor:
        """Return float32 ``[B, N]``; higher is better."""

    def recommend(self, simulator: Simulator) -> Tensor:
        """Return int64 ``[B, K]``, best first."""
        view = recommender_view(simulator)
        return best_unseen(self.scores(view), view.seen, view.slate_size)


def best_unseen(scores: Tensor, seen: Tensor, size: int) -> Tensor:
    """Return the ``size`` best columns of each row outside bool ``[B, N]`` ``seen``."""
    return top_k(scores.masked_fill(seen, -torch.inf), size)


def liked_items(view: RecommenderView, limit: int) -> Tensor:
    """Return the items that each user is known to like, in order of time.

    These are the liked items of the history and those clicked in this session: a policy that is a
    function of them learns from every click at once.

    Args:
        view: of ``B`` sessions.
        limit: the latest so many are returned.

    Returns:
        Int64 ``[B, min(limit, most likes of any session)]``, oldest first, padded in front by -1;
        at least one column.
    """
    items = torch.cat([view.history, view.session_items], dim=1)
    liked = torch.cat([view.history_liked, view.session_clicks > 0], dim=1) & (items >= 0)
    order = torch.sort(liked.to(torch.int8), dim=1, stable=True).indices
    packed = torch.where(liked, items, -1).gather(1, order)
    width = max(1, min(limit, int(liked.sum(dim=1).max())))
    return packed[:, -width:]


def liked_matrix(liked: Tensor, num_items: int) -> Tensor:
    """Return float32 ``[B, N]`` with 1 at each of the ``[B, L]`` items, -1 being none."""
    matrix = torch.zeros(liked.shape[0], num_items + 1, device=liked.device)
    matrix.scatter_(1, torch.where(liked >= 0, liked, num_items), 1.0)
    return matrix[:, :num_items]
