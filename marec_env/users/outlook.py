"""What the next slates bring: from beliefs about users, or from their hidden state."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from marec_env.users.composed import ComposedUsers
from marec_env.users.modules import Examination
from marec_env.users.oracles import (
    AHEAD,
    best_counts,
    best_within,
    by_topic,
    plan_values,
    rank_within,
)

__all__ = ["REQUESTS", "Outlook"]

REQUESTS = tuple(float(ahead) for ahead, _ in AHEAD)
"""Requests ahead that are looked at."""


@dataclass
class Outlook:
    """What is expected of ``B`` sessions, in ``S`` cases each (one, where the truth is known)."""

    share: Tensor
    """Float32 ``[B, S]``: the cases' probabilities."""
    logits: Tensor
    """Float32 ``[B, S, N]``: of clicks on examined items, were no topic boring."""
    losses: Tensor
    """Float32 ``[B, S, T, K + 1, H]``: logits that boredom takes at the requests ``AHEAD`` if so
    many items of the topic are in every slate from now on."""
    topics: Tensor
    """Int64 ``[N]``."""
    examined: Tensor
    """Float32 ``[K]``: the probability of looking at each position."""

    @classmethod
    def of_truth(cls, users: ComposedUsers, slate_size: int) -> Outlook:
        """Return what follows from the users' hidden state. Privileged."""
        population = users.population
        items = torch.arange(population.num_items, device=users.device)
        logits = users.fresh_logits(items.expand(users.num_sessions, -1)).unsqueeze(1)
        losses = users.boredom_ahead(slate_size, torch.tensor(REQUESTS, device=users.device))
        if losses is None:
            losses = logits.new_zeros(
                len(logits), population.num_topics, slate_size + 1, len(AHEAD)
            )
        share = torch.ones_like(logits[:, :, 0])
        examined = Examination(users.config.examination, users.device).probability(slate_size)
        return cls(share, logits, losses.unsqueeze(1), population.topics, examined)

    @cached_property
    def now(self) -> Tensor:
        """Float32 ``[B, N]``: the probability of a click on each item, examined now."""
        loss = self.losses[..., 0, 0].index_select(2, self.topics)
        return torch.einsum("bs,bsn->bn", self.share, torch.sigmoid(self.logits - loss))

    @cached_property
    def fresh(self) -> Tensor:
        """Float32 ``[B, N]``: the same, were no topic boring."""
        return torch.einsum("bs,bsn->bn", self.share, torch.sigmoid(self.logits))

    def myopic(self, seen: Tensor) -> Tensor:
        """Return the slates of most clicks now, int64 ``[B, K]``, without bool ``[B, N]`` seen."""
        return self.now.masked_fill(seen, -torch.inf).topk(len(self.examined), dim=1).indices

    def planned(self, seen: Tensor) -> Tensor:
        """Return the first slates of the plans of most clicks, likewise."""
        order, topics, rank = self._order(seen)
        room = best_counts(self._values(order, topics, rank, 0))
        score = self.now.masked_fill(seen, -torch.inf).gather(1, order)
        return order.gather(1, best_within(score, rank, topics, room, len(self.examined)))

    def worth(self, slate: Tensor, future: Tensor) -> Tensor:
        """Return what slates int64 ``[B, K]`` bring, float32 ``[B]``: clicks now, and those to come
        (:meth:`future`) if every later slate holds as many items of each topic.
        """
        counts = one_hot(self.topics[slate], self.losses.shape[2]).sum(1, keepdim=True)
        later = future.gather(2, counts.transpose(1, 2)).sum((1, 2))
        return self.now.gather(1, slate) @ self.examined + later

    def future(self, seen: Tensor) -> Tensor:
        """Return the clicks that ``0 ... K`` items of each topic in every later slate bring at the
        mean position, float32 ``[B, T, K + 1]``.
        """
        return self.examined.mean() * self._values(*self._order(seen), 1)

    def _order(self, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return unseen items first by chance of a click, their topics, and rank within these."""
        order = self.fresh.masked_fill(seen, -torch.inf).argsort(1, descending=True)
        # What may not be shown comes last; a topic of a catalog has more than it shows.
        topics = self.topics[order]
        return order, topics, rank_within(topics)

    def _values(self, order: Tensor, topics: Tensor, rank: Tensor, first: int) -> Tensor:
        found = torch.zeros(())
        for case in range(self.share.shape[1]):
            losses = self.losses[:, case]
            kinds, places = losses.shape[1:3]
            logits = self.logits[:, case].gather(1, order)
            best = by_topic(logits, topics, rank, kinds, places - 1)
            values = plan_values(best, losses[..., first:], AHEAD[first:])
            found = found + self.share[:, case, None, None] * values
        return found
