"""What moves from request to request and beyond: intents, patience, tastes, returns, supply.

Intent: a passing interest mixed into the lasting taste.

The present interest is ``normalise((1 - w) u + w v)``; it keeps unit length so that the calibrated
scale keeps its meaning. ``v`` is the factor of one item: one the user liked before (the default;
any item of the catalog for users without likes), or any item at all. After each request it is
replaced with the configured probability, so what :meth:`Intent.interest` returns between two
requests is what the next response uses.

Patience: why and when a user leaves a session.

    P <- min(maximum, P + gain * engagement - cost)

* budget: the user leaves when ``P <= 0``. The engagement at which patience stays level is
  ``cost / gain``.
* hazard: the user also leaves with probability ``hazard * exp(-hazard_slope * P)`` a request.

The budget is RecSim's time budget (Ie et al., "RecSim", 2019) in units of engagement; the hazard is
the usual form in survival analysis with a log-linear covariate (Cox 1972).

Drift: how lasting tastes move within an episode. All keep unit length.

* influence: ``u <- normalise(w u + (1 - w) mean of clicked x)`` after a request with clicks
  (SARDINE, Deffayet et al. 2024, with ``w`` = 0.95).
* random_walk: ``u <- normalise(u + s n)``, ``n`` normal with variance ``1/d`` an axis, so that a
  step has length about ``s``.
* amplification: ``u <- normalise(u + a sum over clicked (u . x) x)`` (biased assimilation, Dean and
  Morgenstern, "Preference dynamics under personalized recommendations", EC 2022).

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
from marec_env.compiled import Rows
from marec_env.users import base as lane
from marec_env.users.base import pick
from marec_env.users.config import BudgetPatience, HazardPatience, UsersConfig
from marec_env.users.effects import liked_items, needed_providers
from marec_env.users.modules import Module, Shown

__all__ = ["Drift", "Intent", "Patience", "Returning", "Supply", "geometric_days"]


class Intent(Module):
    """The item that stands for the passing interest of each of ``B`` sessions."""

    def _build(self, config: UsersConfig, population: Population) -> None:
        self._own = config.intent
        self._liked, self._count = liked_items(population)
        if self._own.source == "catalog":
            self._count = torch.zeros_like(self._count)
        self.item = self._keep("item", 0, dtype=torch.int64)
        """Int64 ``[B]``."""

    def _draw(self, users: Tensor, draw: Tensor) -> Tensor:
        count = self._count[users]
        some = self._liked[users, pick(draw, count.clamp(min=1))]
        return torch.where(count > 0, some, pick(draw, self._population.num_items))

    def reset(self, rows: Rows, users: Tensor, keys: Tensor, draw: Tensor) -> None:
        """Draw an intent."""
        rows.put(self.item, self._draw(users, draw))

    def update(self, shown: Shown) -> None:
        """Replace intents by chance."""
        switch = shown.draws.scalars[:, lane.INTENT_SWITCH] < self._own.switch_probability
        rows = Rows(switch)
        self._renew(rows, shown)
        shown.changed = shown.changed or rows

    def _renew(self, rows: Rows, shown: Shown) -> None:
        draw = shown.draws.scalars[:, lane.INTENT_PICK]
        rows.put(self.item, self._draw(rows.of(shown.users), rows.of(draw)))

    def come_back(self, rows: Rows, rested: Tensor, shown: Shown) -> None:
        """Draw an intent for the new session."""
        self._renew(rows, shown)

    def interest(self, interest: Tensor, rows: Rows) -> Tensor:
        """Mix the intents into tastes, float32 ``[n, d]``, unit length."""
        direction = self._population.item_factors[rows.of(self.item)]
        return normalize(interest.lerp(direction, self._own.weight), dim=-1)

    def hidden(self, users: Tensor) -> Tensor:
        """Return the intents' factors, float32 ``[B, d]``."""
        return self._population.item_factors[self.item]


class Patience(Module):
    """The patience left to each of ``B`` sessions; kind budget or hazard."""

    def _build(self, config: UsersConfig, population: Population) -> None:
        assert isinstance(config.patience, BudgetPatience)
        self._own = config.patience
        self.left = self._keep("left", self._own.initial)
        """Float32 ``[B]``."""

    def update(self, shown: Shown) -> None:
        """Say who leaves the session."""
        own = self._own
        self.left.add_(shown.engagement, alpha=own.gain).sub_(own.cost)
        self.left.clamp_(max=own.maximum)
        shown.left = self.left <= 0
        if isinstance(own, HazardPatience):
            chance = own.hazard * torch.exp(-own.hazard_slope * self.left)
            shown.left = shown.left | (shown.draws.scalars[:, lane.LEAVE] < chance)

    def come_back(self, rows: Rows, rested: Tensor, shown: Shown) -> None:
        """Give the new session its initial patience."""
        rows.put(self.left, self._own.initial)

    def hidden(self, users: Tensor) -> Tensor:
        """Return patience over its maximum, float32 ``[B, 1]``, in [-1, 1]."""
        return (self.left / self._own.maximum).clamp(-1.0, 1.0).unsqueeze(1)


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
        place = torch.arange(len(self._order), device=self._device)
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
            items = torch.arange(len(self._provider), device=self._device)
            items = items.expand(self._num_sessions, -1)
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
