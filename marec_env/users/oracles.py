"""Reference policies that see the users' hidden state: a floor, a myopic line and a bar.

* :func:`random_slate`: any items;
* :func:`myopic_slate`: the items of most expected reward in this request;
* :func:`farsighted_slate`: what the user model makes worth waiting for: boredom-aware where users
  get bored, budget- or satisfaction-aware where the model says so; myopic where nothing lasts.

How many items of each topic to show, boredom to come included.

A plan shows ``n_t`` items of topic t at every request from now on. Exposure then has a closed form,
``m_h = rho^h m_0 + (1 - rho^h) n_t / K``, so the clicks that the plan brings over the next requests
are a sum over topics,

    V = sum_t V_t(n_t),    V_t(n) = sum_h w_h sum_{j <= n} sigmoid(r_tj - loss(m_h)),

and the best numbers with ``sum_t n_t = K`` follow by dynamic programming over topics. Only the
first slate is shown; the next request plans anew (receding horizon: Bertsekas, "Dynamic programming
and optimal control", 2017, ch. 6). Where boredom is weak the plan is nearly myopic, where it is
strong it keeps below the threshold, and in between it weighs the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from marec_env import random
from marec_env.users.base import Users
from marec_env.users.composed import ComposedUsers
from marec_env.users.modules import Examination

Oracle = Callable[[Users, Tensor, Tensor, int], Tensor]
"""From users, the sessions' keys int64 ``[B]``, the items on offer (int64 ``[B, C]``) and K: the
slate, int64 ``[B, K]``."""

AHEAD = ((0, 1), (1, 1), (2, 2), (4, 4), (8, 8))
"""Requests ahead that are looked at, and how many requests each stands for: sixteen in all."""
_CELLS = 1 << 22  # numbers held at once
_NOTHING = -1e9  # below every value, and the logit of an item that a topic does not have


def _best(value: Tensor, seen: Tensor | None, offer: Tensor, slate_size: int) -> Tensor:
    """Return the items on offer of largest value (``[B, N]``), best first, none that was seen."""
    value = value if seen is None else value.masked_fill(seen, -torch.inf)
    place = value.gather(1, offer).topk(slate_size, dim=1).indices
    return offer.gather(1, place)


def random_slate(users: Users, keys: Tensor, offer: Tensor, slate_size: int) -> Tensor:
    """Return different items of the offer, drawn by the session's key and request."""
    draw = random.uniform(keys, users.request_index, "oracle/random", offer.shape[1])
    return offer.gather(1, draw.topk(slate_size, dim=1).indices)


def myopic_slate(
    users: Users, keys: Tensor, offer: Tensor, slate_size: int, seen: Tensor | None = None
) -> Tensor:
    """Return the items that promise most in this request; none of ``seen`` (bool ``[B, N]``)."""
    del keys
    reward = getattr(users, "expected_reward", users.click_probability)()
    return _best(reward, seen, offer, slate_size)


def farsighted_slate(
    users: Users, keys: Tensor, offer: Tensor, slate_size: int, seen: Tensor | None = None
) -> Tensor:
    """Return the best slate that spares the future; no item of ``seen`` (bool ``[B, N]``) in it.

    Where the model has a ``long_term_value``, its best items; where it can ``plan_slate`` as a
    whole, its plan. Where exposure to topics bores, the first slate of the best plan; where clicks
    on topics do, the most promising items of each topic up to what it can take without boring the
    user, most promising first, then the rest.
    """
    value = getattr(users, "long_term_value", None)
    if value is not None:
        return _best(value(), seen, offer, slate_size)
    plan = getattr(users, "plan_slate", None)
    if plan is not None and seen is None:
        planned: Tensor = plan(offer, slate_size)
        return planned
    if not isinstance(users, ComposedUsers):
        return myopic_slate(users, keys, offer, slate_size, seen)
    requests = torch.tensor([float(ahead) for ahead, _ in AHEAD], device=offer.device)
    losses = users.boredom_ahead(slate_size, requests)
    if losses is None:
        order_by = users.click_probability().gather(1, offer)
    else:
        order_by = users.fresh_logits(offer)
    if seen is not None:
        order_by = order_by.masked_fill(seen.gather(1, offer), -torch.inf)
    order = order_by.argsort(1, descending=True)
    items, ranked = offer.gather(1, order), order_by.gather(1, order)
    topics = users.population.topics[items]
    rank = rank_within(topics)
    if losses is None:
        room, score = users.topic_room(slate_size), ranked
    else:
        best = by_topic(ranked, topics, rank, losses.shape[1], slate_size)
        room, score = best_counts(plan_values(best, losses)), users.click_probability(items)
    score = score.masked_fill(torch.isneginf(ranked), -torch.inf)
    return items.gather(1, best_within(score, rank, topics, room, slate_size))


def best_within(score: Tensor, rank: Tensor, topics: Tensor, room: Tensor, size: int) -> Tensor:
    """Return the ``size`` places of largest score ``[B, M]``, best first, those first that rank
    within the room of their topic (int64 ``[B, T]``); ``rank`` and ``topics`` int64 ``[B, M]``.
    """
    score = score + torch.where(rank < room.gather(1, topics), 0.0, _NOTHING)
    return score.topk(size, dim=1).indices


def rank_within(topics: Tensor) -> Tensor:
    """Return each place's rank among the places of its topic, int64 ``[B, M]``."""
    # Stable sort by topic keeps the order inside each.
    by_topic = topics.argsort(dim=1, stable=True)
    sorted_topics = topics.gather(1, by_topic)
    position = torch.arange(topics.shape[1], device=topics.device).expand_as(topics)
    new = torch.ones_like(sorted_topics, dtype=torch.bool)
    new[:, 1:] = sorted_topics[:, 1:] != sorted_topics[:, :-1]
    start = torch.where(new, position, 0).cummax(1).values
    return torch.empty_like(topics).scatter_(1, by_topic, position - start)


def by_topic(ranked: Tensor, topics: Tensor, rank: Tensor, num_topics: int, size: int) -> Tensor:
    """Return what is known of each topic's first items, float32 ``[B, T, size]``, ``-inf`` where it
    has no more.

    Args:
        ranked: float32 ``[B, M]``, of items.
        topics: int64 ``[B, M]``, theirs; ``rank``, theirs within the topic.
        rank: int64 ``[B, M]``.
        num_topics: T.
        size: how many of each.
    """
    found = torch.full((len(ranked), num_topics * size + 1), -torch.inf, device=ranked.device)
    # Whatever ranks beyond that goes to a last place that is cut off.
    cell = torch.where(rank < size, topics * size + rank, found.shape[1] - 1)
    found.scatter_(1, cell, ranked)
    return found[:, :-1].view(len(ranked), num_topics, size)


def plan_values(ranked: Tensor, losses: Tensor, ahead: Sequence[tuple[int, int]] = AHEAD) -> Tensor:
    """Return the clicks that showing ``n`` items of each topic brings, float32 ``[B, T, K + 1]``.

    Args:
        ranked: float32 ``[B, T, K]``, click logits of each topic's best items without boredom, best
            first; ``-inf`` where the topic has no more.
        losses: float32 ``[B, T, K + 1, H]``, logits that boredom takes at the requests ``ahead``
            if ``n`` items are shown at each.
        ahead: requests ahead, and how many each stands for.
    """
    sessions, topics, size = ranked.shape
    weights = torch.tensor([float(count) for _, count in ahead], device=ranked.device)
    shown = torch.ones(size + 1, size, device=ranked.device).tril(-1)  # row n: the first n items
    logits = ranked.clamp(min=_NOTHING)
    step = max(1, _CELLS // (topics * (size + 1) * size * len(ahead)))
    parts = []
    for first in range(0, sessions, step):
        rows = slice(first, first + step)
        chance = torch.sigmoid(logits[rows, :, None, None, :] - losses[rows].unsqueeze(-1))
        parts.append(((chance * shown[:, None, :]).sum(-1) * weights).sum(-1))
    values = torch.cat(parts)
    # A topic cannot give more items than it has.
    missing = torch.isneginf(ranked).to(torch.float32) @ shown.T > 0
    return values.masked_fill(missing, _NOTHING)


def best_counts(values: Tensor) -> Tensor:
    """Return how many items of each topic make the best slate, int64 ``[B, T]`` with row sums K.

    Args:
        values: float32 ``[B, T, K + 1]``, what 0 ... K items of each topic are worth.
    """
    sessions, topics, places = values.shape
    best = torch.full((sessions, places), 2 * _NOTHING, device=values.device)
    best[:, 0] = 0.0
    choices = []
    for topic in range(topics):
        options = torch.full((sessions, places, places), 4 * _NOTHING, device=values.device)
        for count in range(places):  # [.., total, count]: of the total, so many of this topic
            left = places - count
            options[:, count:, count] = best[:, :left] + values[:, topic, count : count + 1]
        best, choice = options.max(dim=2)
        choices.append(choice)
    counts = torch.zeros(sessions, topics, dtype=torch.int64, device=values.device)
    total = torch.full((sessions, 1), places - 1, dtype=torch.int64, device=values.device)
    for topic in range(topics - 1, -1, -1):
        taken = choices[topic].gather(1, total)
        counts[:, topic] = taken.squeeze(1)
        total = total - taken
    return counts


ORACLES: dict[str, Oracle] = {
    "random": random_slate,
    "myopic": myopic_slate,
    "farsighted": farsighted_slate,
}
"""By name."""


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
