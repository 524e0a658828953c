"""What moves beyond a request: tastes that drift, users who return, a supply that comes and goes.

Drift: how lasting tastes move within an episode. All keep unit length.

* influence: ``u <- normalise(w u + (1 - w) mean of clicked x)`` after a request with clicks
  (SARDINE, Deffayet et al. 2024, with ``w`` = 0.95).
* random_walk: ``u <- normalise(u + s n)``, ``n`` normal with variance ``1/d`` an axis, so that a
  step has length about ``s``.
* amplification: ``u <- normalise(u + a sum over clicked (u . x) x)`` (biased assimilation, Dean and
  Morgenstern, "Preference dynamics under personalized recommendations", EC 2022).

Boredom by events: too many clicks on one topic in a short time.

The clicks of the last ``window`` requests count, at most the last ``max_clicks`` of them. A topic
with at least ``clicks`` of these is bored for ``duration`` requests; a topic still over the mark
when its boredom ends is bored anew. Two effects (SARDINE, Deffayet et al. 2024):

* loss_of_interest: the bored topic's coordinate of the interest counts as zero;
* churn: while any topic is bored, the whole interest counts as zero ("churn and return").

A session whose user is not susceptible never gets bored.

Return: whether and when a user comes back after a session, and trust.

On each day after a session the user returns with probability ``p = clamp(bias + slope * s)``, where
``s`` is the satisfaction that the sessions so far have left, so the gap in days is geometric. A gap
longer than ``max_gap`` loses the user. Trust moves with every session by

    trust <- min(initial, trust + cost * (s / break_even - 1))

and ends the episode at zero. The geometric return day is that of KuaiSim's cross-session level
(Zhao et al., NeurIPS 2023); retention as the outcome of past satisfaction follows Cai et al.,
"Reinforcing user retention in a billion scale short video recommender system", WWW 2023.

Supply: items arrive and age, and providers without an audience leave.

Each session is a world of its own, so that it does not depend on the batch it runs in. A provider's
credit is ``c <- memory c + clicks``; below ``leave_below`` the provider leaves and takes all items
along. With probability ``arrival`` a request one reserve item arrives, of a provider drawn with
weight ``(1 + c)^2`` among those present that have any: success breeds supply (providers that react
to exposure: Zhan et al., "Towards content provider aware recommender systems", WWW 2021). An item
loses ``aging`` logits a request since it appeared, up to ``aging_limit``. Items that arrive later
are the catalog's cold items: nobody has consumed them before.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import embedding, normalize

from marec_env import random
from marec_env.catalog.population import Population
from marec_env.errors import ConfigError
from marec_env.users import base as lane
from marec_env.users.base import Module, Shown
from marec_env.users.config import ClickBoredomConfig, UsersConfig
from marec_env.users.effects import needed_providers
from marec_env.vector import Rows


class Drift(Module):
    """One law of motion of tastes."""

    def _build(self, config: UsersConfig, population: Population) -> None:
        self._own = config.drift

    def update(self, shown: Shown) -> None:
        """Move the tastes."""
        shown.taste.copy_(self._moved(shown))
        shown.changed = Rows()

    def _moved(self, shown: Shown) -> Tensor:
        own, taste, clicks = self._own, shown.taste, shown.found["click"]
        if own.kind == "random_walk":
            size = taste.shape[1]
            noise = random.normal(shown.keys, shown.step, "users/drift", size)
            return normalize(taste + (own.step / math.sqrt(size)) * noise, dim=1)
        items = embedding(shown.slate, self._population.item_factors)
        if own.kind == "amplification":
            liking = clicks * torch.bmm(items, taste.unsqueeze(2)).squeeze(2)
            pull = torch.bmm(liking.unsqueeze(1), items).squeeze(1)
            return normalize(taste + own.gain * pull, dim=1)
        assert own.kind == "influence"
        count = clicks.sum(1, keepdim=True)
        mean = torch.bmm(clicks.unsqueeze(1), items).squeeze(1) / count.clamp(min=1.0)
        moved = normalize(self._pull(mean).lerp(taste, own.inertia), dim=1)
        return torch.where(count > 0, moved, taste)

    def _pull(self, mean: Tensor) -> Tensor:
        """Return where the mean of clicked items, float32 ``[B, d]``, draws a taste."""
        return mean


def geometric_days(probability: Tensor, draw: Tensor) -> Tensor:
    """Return the day of the first success, 1, 2, ..., by inversion; infinite at probability 0.

    Args:
        probability: float32 ``[B]`` in [0, 1], of success a day.
        draw: float32 ``[B]``, uniform in (0, 1).

    Returns:
        Float32 ``[B]``.
    """
    days = torch.ceil(torch.log(draw) / torch.log1p(-probability.clamp(max=1 - 1e-7)))
    return torch.where(probability > 0, days.clamp(min=1.0), torch.inf)


class Returning(Module):
    """Sessions held, requests of the present one and trust, of ``B`` episodes."""

    def _build(self, config: UsersConfig, population: Population) -> None:
        self._own = config.returning
        self.sessions = self._keep("sessions", 0, dtype=torch.int64)
        """Int64 ``[B]``: sessions ended so far in this episode."""
        self.requests = self._keep("requests", 0, dtype=torch.int64)
        """Int64 ``[B]``: requests of the present session."""
        self.trust = self._keep("trust", self._own.trust_initial)
        """Float32 ``[B]``."""

    def update(self, shown: Shown) -> None:
        """Say who left for good, and after how many days a session begins where one does."""
        own, satisfaction = self._own, shown.satisfaction
        ended = torch.zeros_like(self.requests, dtype=torch.bool)
        if shown.left is not None:
            ended = shown.left
        self.requests += 1
        if own.requests:
            ended = ended | (self.requests >= own.requests)
        self.sessions += ended
        change = own.trust_cost * (satisfaction / own.trust_break_even - 1.0)
        self.trust.copy_(torch.where(ended, self.trust + change, self.trust))
        self.trust.clamp_(max=own.trust_initial)
        probability = (own.bias + own.slope * satisfaction).clamp_(0.0, 1.0)
        days = geometric_days(probability, shown.draws.scalars[:, lane.RETURN])
        returns = ended & (days <= own.max_gap) & (self.trust > 0) & (self.sessions < own.sessions)
        self.requests.masked_fill_(ended, 0)
        shown.left, shown.gap = ended & ~returns, torch.where(returns, days, 0.0)
        shown.changed = Rows()

    def hidden(self, users: Tensor) -> Tensor:
        """Return sessions over their maximum and trust over its initial value, ``[B, 2]``."""
        trust = (self.trust / self._own.trust_initial).clamp(-1.0, 1.0)
        return torch.stack([self.sessions / self._own.sessions, trust], dim=1)


class Supply(Module):
    """Providers' credit and released items in the worlds of ``B`` sessions."""

    def _build(self, config: UsersConfig, population: Population) -> None:
        self._own = own = config.supply
        self._provider = needed_providers(
            population, "users.supply.enabled is true", "switch supply off"
        )
        self._counts = counts = torch.bincount(self._provider)
        self._order = torch.argsort(self._provider, stable=True)
        self._starts = torch.cumsum(counts, 0) - counts
        place = torch.arange(len(self._order), device=self.device)
        # The item's place among its provider's, in catalog order.
        self._rank = torch.empty_like(place)
        self._rank[self._order] = place - self._starts[self._provider[self._order]]
        first = torch.ceil((1.0 - own.reserve) * counts).to(torch.int64)
        self.released = self._keep("released", first, len(counts), dtype=torch.int64)
        """Int64 ``[B, P]``: how many of the provider's items have appeared."""
        self.credit = self._keep("credit", own.credit_initial, len(counts))
        """Float32 ``[B, P]``, in clicks."""
        self.present = self._keep("present", True, len(counts), dtype=torch.bool)
        """Bool ``[B, P]``."""
        self.arrived = self._keep("arrived", 0, population.num_items, dtype=torch.int32)
        """Int32 ``[B, N]``: the request at which the item appeared."""

    def available(self, items: Tensor | None = None) -> Tensor:
        """Return which items can be had, bool ``[B, M]`` (or ``[B, N]`` for all)."""
        if items is None:
            items = torch.arange(len(self._provider), device=self.device)
            items = items.expand(self.num_sessions, -1)
        provider = self._provider[items]
        out = self._rank[items] < self.released.gather(1, provider)
        return out & self.present.gather(1, provider)

    def adjust(self, logits: Tensor, shown: Shown) -> Tensor:
        """Take off what the items have lost by age."""
        age = shown.step.unsqueeze(1) - self.arrived.gather(1, shown.slate)
        return logits - (self._own.aging * age).clamp_(0.0, self._own.aging_limit)

    def update(self, shown: Shown) -> None:
        """Let providers earn, leave and bring items."""
        own, draws = self._own, shown.draws
        self.credit.mul_(own.credit_memory)
        self.credit.scatter_add_(1, self._provider[shown.slate], shown.found["click"])
        self.present &= self.credit >= own.leave_below
        can = self.present & (self.released < self._counts)
        upper = ((1.0 + self.credit).square() * can).cumsum(1)
        below = upper <= draws.one(lane.PROVIDER) * upper[:, -1:]
        provider = below.sum(1, keepdim=True).clamp_(max=len(self._counts) - 1)
        arrives = (draws.one(lane.ARRIVE) < own.arrival) & can.any(1, keepdim=True)
        # Where nothing arrives the place may lie beyond the last; what is there then stays.
        place = self._starts[provider] + self.released.gather(1, provider)
        item = self._order[place.clamp(max=len(self._order) - 1)]
        new = (shown.step.unsqueeze(1) + 1).to(torch.int32)
        now = torch.where(arrives, new, self.arrived.gather(1, item))
        self.arrived.scatter_(1, item, now)
        self.released.scatter_add_(1, provider, arrives.to(torch.int64))

    def hidden(self, users: Tensor) -> Tensor:
        """Return who is present."""
        return self.present.to(torch.float32)


_NEVER = -(1 << 30)  # the request of a click that has not been made


class ClickBoredom(Module):
    """Recent clicks and boredom timers of ``B`` sessions and ``T`` topics; kind loss_of_interest or
    churn.
    """

    def _build(self, config: UsersConfig, population: Population) -> None:
        own, topics, size = config.boredom, population.num_topics, population.user_factors.shape[1]
        assert isinstance(own, ClickBoredomConfig)
        if own.kind == "loss_of_interest" and topics != size:
            raise ConfigError(
                f"users.boredom.kind 'loss_of_interest' needs one factor a topic, but there are "
                f"{size} factors and {topics} topics; use 'churn' or 'threshold'"
            )
        self._own = own
        self.topics = self._keep("topics", 0, own.max_clicks, dtype=torch.int64)
        """Int64 ``[B, M]``: the topics of the last clicks, oldest first, at the right."""
        self.steps = self._keep("steps", _NEVER, own.max_clicks, dtype=torch.int64)
        """Int64 ``[B, M]``: in which request they were made."""
        self.remaining = self._keep("remaining", 0, topics, dtype=torch.int64)
        """Int64 ``[B, T]``: requests of boredom left."""

    def recent(self, step: Tensor) -> Tensor:
        """Return the clicks that count after request ``step`` (int64 ``[B]``), int64 ``[B, T]``."""
        counted = (self.steps > (step - self._own.window).unsqueeze(1)).to(torch.int64)
        return torch.zeros_like(self.remaining).scatter_add_(1, self.topics, counted)

    def update(self, shown: Shown) -> None:
        """Note the clicks and what they bore of; interests are others from now on."""
        step, size = shown.step, self.topics.shape[1]
        topics = torch.cat([self.topics, shown.topics], dim=1)
        clicked = torch.where(shown.found["click"] > 0, step.unsqueeze(1), _NEVER)
        steps = torch.cat([self.steps, clicked], dim=1)
        valid = steps > _NEVER
        # Rank from the right among real clicks; the last `size` of them move to the right end, and
        # what is left over lands in a spare column that is cut off.
        rank = valid.to(torch.int64).flip(1).cumsum(1).flip(1)
        place = torch.where(valid & (rank <= size), size - rank, size)
        for kept, values, empty in ((self.topics, topics, 0), (self.steps, steps, _NEVER)):
            spare = torch.full_like(values[:, : size + 1], empty)
            kept.copy_(spare.scatter_(1, place, values)[:, :size])

        self.remaining.sub_(1).clamp_(min=0)
        over = (self.recent(step) >= self._own.clicks) & (shown.susceptibility > 0).unsqueeze(1)
        self.remaining.masked_fill_(over & (self.remaining == 0), self._own.duration)
        shown.changed = Rows()

    def interest(self, interest: Tensor, rows: Rows) -> Tensor:
        """Return the interest with what is bored set to zero."""
        bored = rows.of(self.remaining) > 0
        return interest * ~(bored.any(1, keepdim=True) if self._own.kind == "churn" else bored)

    def room(self, slate_size: int, step: Tensor) -> Tensor:
        """Return how many clicks each topic can take in request ``step`` (int64 ``[B]``, the one to
        come) without getting bored, int64 ``[B, T]``.
        """
        return (self._own.clicks - 1 - self.recent(step)).clamp_(min=0)

    def come_back(self, rows: Rows, rested: Tensor, shown: Shown) -> None:
        """Forget everything after an absence worth more than the window; keep it otherwise."""
        assert rows.where is not None
        forgotten = Rows(rows.where & (rested >= self._own.window))
        for name, first in self._first.items():
            forgotten.put(self._live[name], first)

    def hidden(self, users: Tensor) -> Tensor:
        """Return the share of the boredom still ahead, float32 ``[B, T]`` in [0, 1]."""
        return self.remaining / self._own.duration
