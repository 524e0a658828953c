"""The floor: random slates, and the most popular unseen items."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from agents.baselines.scoring import ScoringPolicy, best_unseen
from marec_env.evaluation.policies import RecommenderView, recommender_view
from marec_env.random import uniform

if TYPE_CHECKING:
    from marec_env.simulator import Simulator

__all__ = ["PopularityPolicy", "RandomSlates"]


class RandomSlates:
    """Show ``K`` unseen items drawn uniformly; the draw depends on the session's key alone."""

    name = "random_slates"
    privileged = False

    def recommend(self, simulator: Simulator) -> Tensor:
        """Return int64 ``[B, K]``."""
        view = recommender_view(simulator)
        draws = uniform(
            simulator.session_keys, view.request_index, "baseline/random", view.seen.shape[1]
        )
        return best_unseen(draws, view.seen, view.slate_size)


class PopularityPolicy(ScoringPolicy):
    """Show the items most liked in the log."""

    name = "popularity"

    def __init__(self, counts: Tensor) -> None:
        """Args:
        counts: float32 ``[N]``, likes of each item.
        """
        self.counts = counts

    def scores(self, view: RecommenderView) -> Tensor:
        """Return the same scores for every session."""
        return self.counts.to(view.seen.device).expand(view.seen.shape[0], -1)
