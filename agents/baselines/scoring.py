"""What slate policies share: the log as they train on it, and the best unseen items by score.

And the policies that learn nothing: random slates, popularity, and the privileged oracles, which
bound what there is to gain. The myopic oracle knows each user's click probabilities of the moment;
the planning one also counts what a slate's repetition of topics costs afterwards
(:mod:`marec_env.users.oracles`): where users get bored, the step between the two is what planning
is worth.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from marec_env.data.interactions import InteractionLog
from marec_env.evaluation.policies import RecommenderView, recommender_view
from marec_env.pipeline.selection import first_occurrences, first_unseen, top_k
from marec_env.random import integers, uniform
from marec_env.users.oracles import farsighted_slate, myopic_slate

if TYPE_CHECKING:
    from marec_env.simulator import Simulator

_DRAW_ALL = 20_000  # items up to which random slates draw a number for each


@dataclass(frozen=True, slots=True)
class TrainingLog:
    """The likes of ``U`` users over ``N`` items that the recommender may see."""

    user: Tensor
    """Int64 ``[R]``, sorted by user, then time."""
    item: Tensor
    """Int64 ``[R]``."""
    num_users: int
    num_items: int

    @property
    def counts(self) -> Tensor:
        """Float32 ``[N]``: likes of each item."""
        return torch.bincount(self.item, minlength=self.num_items).to(torch.float32)

    @property
    def popularity(self) -> Tensor:
        """Float32 ``[N]``: likes over those of the most liked item."""
        return self.counts / self.counts.max().clamp(min=1)

    def matrix(self) -> sparse.csr_matrix:
        """Return the ``[U, N]`` matrix of likes, float32, each 1."""
        shape = (self.num_users, self.num_items)
        entries = (np.ones(self.user.numel(), dtype=np.float32), (self.user, self.item))
        matrix = sparse.csr_matrix(entries, shape=shape)
        matrix.data[:] = 1.0  # a repeated like counts once
        return matrix

    def sequences(self, length: int) -> Tensor:
        """Return each user's latest ``length`` likes, int64 ``[U, length]``, front-padded by -1."""
        ends = torch.bincount(self.user, minlength=self.num_users).cumsum(0)
        from_end = ends[self.user] - 1 - torch.arange(self.user.numel())
        kept = from_end < length
        table = torch.full((self.num_users, length), -1, dtype=torch.int64)
        table[self.user[kept], length - 1 - from_end[kept]] = self.item[kept]
        return table


def training_log(log: InteractionLog) -> TrainingLog:
    """Return the likes of a log that is already cut to what the recommender may see."""
    liked = log.liked
    return TrainingLog(log.user[liked], log.item[liked], log.num_users, log.num_items)


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


class LikesPolicy(ScoringPolicy):
    """One whose scores follow from what a user is known to like, so that every click, and a new
    user's first, counts at the next request.
    """

    latest = 200
    """Likes that count."""

    def scores(self, view: RecommenderView) -> Tensor:
        """Return float32 ``[B, N]``."""
        return self.scores_of(liked_items(view, self.latest))

    @abstractmethod
    def scores_of(self, liked: Tensor) -> Tensor:
        """Return float32 ``[B, N]`` from liked items, int64 ``[B, L]``, padded by -1."""


def best_unseen(scores: Tensor, seen: Tensor, size: int) -> Tensor:
    """Return the ``size`` best columns of each row outside bool ``[B, N]`` ``seen``."""
    return top_k(scores.masked_fill(seen, -torch.inf), size)


def liked_items(view: RecommenderView, limit: int) -> Tensor:
    """Return the items that each user is known to like, in order of time.

    These are the liked items of the history and those clicked in this session; int64
    ``[B, min(limit, most likes of any session)]``, oldest first, padded in front by -1; at least
    one column.
    """
    items = torch.cat([view.history, view.session_items], dim=1)
    liked = torch.cat([view.history_liked, view.session_clicks > 0], dim=1) & (items >= 0)
    order = torch.sort(liked.to(torch.int8), dim=1, stable=True).indices
    packed = torch.where(liked, items, -1).gather(1, order)
    width = max(1, min(limit, int(liked.sum(dim=1).max())))
    return packed[:, -width:]


def sum_of_rows(table: Tensor, items: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sums ``[B, d]`` of rows of ``[N, d]``, named by int64 ``[B, L]``.

    Places of -1 are taken for row 0: give them weight 0.
    """
    return functional.embedding_bag(
        items.clamp(min=0), table.to(items.device), per_sample_weights=weights, mode="sum"
    )


class RandomSlates:
    """Show ``K`` unseen items drawn uniformly; the draw depends on the session's key alone. Of a
    catalog of more than 20,000 items a few are drawn with replacement and the first unseen shown.
    """

    name = "random_slates"
    privileged = False

    def recommend(self, simulator: Simulator) -> Tensor:
        """Return int64 ``[B, K]``."""
        view = recommender_view(simulator)
        keys, items, size = simulator.session_keys, view.seen.shape[1], view.slate_size
        if items > _DRAW_ALL and 10 * (view.most_seen + size) <= items:
            # With nine tenths unseen, K of so many are, but for odds below 1e-20.
            few = integers(keys, view.request_index, "baseline/random", 2 * size + 30, items)
            return first_unseen(first_occurrences(few), view.seen, size)
        draws = uniform(keys, view.request_index, "baseline/random", items)
        return best_unseen(draws, view.seen, view.slate_size)


class PopularityPolicy(ScoringPolicy):
    """Show the items most liked in the log."""

    name = "popularity"

    def __init__(self, counts: Tensor) -> None:
        """``counts``: float32 ``[N]``, likes of each item."""
        self.counts = counts
        self._order = top_k(counts.unsqueeze(0), len(counts))

    def recommend(self, simulator: Simulator) -> Tensor:
        """Return int64 ``[B, K]``, best first: the same as by scores, from the catalog's head."""
        view = recommender_view(simulator)
        head = self._order[:, : view.most_seen + view.slate_size].to(view.seen.device)
        return first_unseen(head.expand(len(view.seen), -1), view.seen, view.slate_size)

    def scores(self, view: RecommenderView) -> Tensor:
        """Return the same scores for every session."""
        return self.counts.to(view.seen.device).expand(view.seen.shape[0], -1)


class MyopicOracle:
    """Show the ``K`` unseen items most likely to be clicked now."""

    name = "oracle_myopic"
    privileged = True
    choose = staticmethod(myopic_slate)

    def recommend(self, simulator: Simulator) -> Tensor:
        """Return int64 ``[B, K]``, most likely first (the order that examination rewards)."""
        view, users = recommender_view(simulator), simulator.users
        items = torch.arange(users.num_items, device=view.seen.device).expand(len(view.seen), -1)
        return self.choose(users, simulator.session_keys, items, view.slate_size, view.seen)


class PlanningOracle(MyopicOracle):
    """Show the first slate of the best plan, boredom to come included."""

    name = "oracle"
    choose = staticmethod(farsighted_slate)
