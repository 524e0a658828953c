"""What moves beyond a request: tastes that drift, users who return, a supply that comes and goes.

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
from marec_env.users.config import DriftConfig, ReturnConfig, SupplyConfig
from marec_env.users.effects import needed_providers

__all__ = ["Drift", "Returning", "Supply", "geometric_days"]


class Drift:
    """One law of motion of tastes."""

    def __init__(self, config: DriftConfig, item_factors: Tensor) -> None:
        """Args:
        config: the section ``users.drift``.
        item_factors: float32 ``[N, d]``.
        """
        self._config = config
        self._factors = item_factors

    def move(
        self, taste: Tensor, slate: Tensor, clicks: Tensor, keys: Tensor, step: Tensor
    ) -> Tensor:
        """Return the tastes after one request.

        Args:
            taste: float32 ``[B, d]``, unit length.
            slate: int64 ``[B, K]``.
            clicks: float32 ``[B, K]``.
            keys: int64 ``[B]``, the sessions' keys (random_walk).
            step: int64 ``[B]``, the request's number (random_walk).

        Returns:
            Float32 ``[B, d]``.
        """
        config = self._config
        if config.kind == "none":
            return taste
        if config.kind == "random_walk":
            size = taste.shape[1]
            noise = random.normal(keys, step, "users/drift", size)
            return normalize(taste + (config.step / math.sqrt(size)) * noise, dim=1)
        shown = embedding(slate, self._factors)
        if config.kind == "amplification":
            liking = clicks * torch.bmm(shown, taste.unsqueeze(2)).squeeze(2)
            pull = torch.bmm(liking.unsqueeze(1), shown).squeeze(1)
            return normalize(taste + config.gain * pull, dim=1)
        count = clicks.sum(1, keepdim=True)
        mean = torch.bmm(clicks.unsqueeze(1), shown).squeeze(1) / count.clamp(min=1.0)
        moved = normalize(self._pull(mean).lerp(taste, config.inertia), dim=1)
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


class Returning:
    """Sessions held, requests of the present one and trust, of ``B`` episodes."""

    def __init__(self, config: ReturnConfig, num_sessions: int, device: torch.device) -> None:
        """Args:
        config: the section ``users.returning``.
        num_sessions: B, the number of episodes side by side.
        device: where the state lives.
        """
        self._config = config
        self.sessions = torch.zeros(num_sessions, dtype=torch.int64, device=device)
        """Int64 ``[B]``: sessions ended so far in this episode."""
        self.requests = torch.zeros_like(self.sessions)
        """Int64 ``[B]``: requests of the present session."""
        self.trust = torch.full((num_sessions,), config.trust_initial, device=device)
        """Float32 ``[B]``."""

    def reset(self, rows: Tensor) -> None:
        """Begin the episodes ``rows`` (int64 ``[n]``) anew."""
        self.sessions[rows] = 0
        self.requests[rows] = 0
        self.trust[rows] = self._config.trust_initial

    def update(self, ended: Tensor, satisfaction: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
        """Take one request into account.

        Args:
            ended: bool ``[B]``, whose patience ended the session.
            satisfaction: float32 ``[B]`` in [0, 1].
            draw: float32 ``[B]``, uniform.

        Returns:
            Bool ``[B]``, who left for good, and float32 ``[B]``, the days until the next session
            where one begins, 0 elsewhere.
        """
        config = self._config
        self.requests += 1
        if config.requests:
            ended = ended | (self.requests >= config.requests)
        self.sessions += ended
        change = config.trust_cost * (satisfaction / config.trust_break_even - 1.0)
        self.trust = torch.where(ended, self.trust + change, self.trust)
        self.trust.clamp_(max=config.trust_initial)
        probability = (config.bias + config.slope * satisfaction).clamp_(0.0, 1.0)
        days = geometric_days(probability, draw)
        returns = (
            ended & (days <= config.max_gap) & (self.trust > 0) & (self.sessions < config.sessions)
        )
        self.requests.masked_fill_(ended, 0)
        return ended & ~returns, torch.where(returns, days, 0.0)

    def scaled(self) -> Tensor:
        """Return sessions over their maximum and trust over its initial value, ``[B, 2]``."""
        return torch.stack(
            [
                self.sessions / self._config.sessions,
                (self.trust / self._config.trust_initial).clamp(-1.0, 1.0),
            ],
            dim=1,
        )

    def state(self) -> dict[str, Tensor]:
        """Return the live tensors that make up the state."""
        return {"sessions": self.sessions, "requests": self.requests, "trust": self.trust}


class Supply:
    """Providers' credit and released items in the worlds of ``B`` sessions."""

    def __init__(self, config: SupplyConfig, num_sessions: int, population: Population) -> None:
        """Args:
        config: the section ``users.supply``.
        num_sessions: B.
        population: its ``providers`` must be given.

        Raises:
            ConfigError: the population does not say who offers its items.
        """
        self._config = config
        self._provider = needed_providers(
            population, "users.supply.enabled is true", "switch supply off"
        )
        device = self._provider.device
        counts = torch.bincount(self._provider)
        order = torch.argsort(self._provider, stable=True)
        starts = torch.cumsum(counts, 0) - counts
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=device) - starts[self._provider[order]]
        self._rank = rank  # the item's place among its provider's, in catalog order
        self._counts = counts
        self._order, self._starts = order, starts
        self._first = torch.ceil((1.0 - config.reserve) * counts).to(torch.int64)
        providers = len(counts)
        self.released = self._first.repeat(num_sessions, 1)
        """Int64 ``[B, P]``: how many of the provider's items have appeared."""
        self.credit = torch.full((num_sessions, providers), config.credit_initial, device=device)
        """Float32 ``[B, P]``, in clicks."""
        self.present = torch.ones(num_sessions, providers, dtype=torch.bool, device=device)
        """Bool ``[B, P]``."""
        self.arrived = torch.zeros(
            num_sessions, population.num_items, dtype=torch.int32, device=device
        )
        """Int32 ``[B, N]``: the request at which the item appeared."""

    def reset(self, rows: Tensor) -> None:
        """Begin the worlds ``rows`` (int64 ``[n]``) anew."""
        self.released[rows] = self._first
        self.credit[rows] = self._config.credit_initial
        self.present[rows] = True
        self.arrived[rows] = 0

    def available(self, items: Tensor | None = None) -> Tensor:
        """Return which items can be had, bool ``[B, M]`` (or ``[B, N]`` for all)."""
        if items is None:
            items = torch.arange(len(self._provider), device=self._provider.device)
            items = items.expand(len(self.credit), -1)
        provider = self._provider[items]
        out = self._rank[items] < self.released.gather(1, provider)
        return out & self.present.gather(1, provider)

    def penalty(self, items: Tensor, step: Tensor) -> Tensor:
        """Return the logits that int64 ``[B, M]`` items have lost by age at request ``step``."""
        age = step.unsqueeze(1) - self.arrived.gather(1, items)
        return (self._config.aging * age).clamp_(0.0, self._config.aging_limit)

    def update(
        self, slate: Tensor, clicks: Tensor, step: Tensor, arrive: Tensor, pick: Tensor
    ) -> None:
        """Take one request into account.

        Args:
            slate: int64 ``[B, K]``.
            clicks: float32 ``[B, K]``.
            step: int64 ``[B]``, the request's number.
            arrive: float32 ``[B]``, uniform; below ``arrival`` an item arrives.
            pick: float32 ``[B, 1]``, uniform; picks the provider.
        """
        config = self._config
        self.credit.mul_(config.credit_memory)
        self.credit.scatter_add_(1, self._provider[slate], clicks)
        self.present &= self.credit >= config.leave_below
        can = self.present & (self.released < self._counts)
        weight = (1.0 + self.credit).square() * can
        upper = weight.cumsum(1)
        chosen = (upper <= pick * upper[:, -1:]).sum(1).clamp_(max=len(self._counts) - 1)
        rows = ((arrive < config.arrival) & can.any(1)).nonzero().squeeze(1)
        provider = chosen[rows]
        item = self._order[self._starts[provider] + self.released[rows, provider]]
        self.arrived[rows, item] = (step[rows] + 1).to(torch.int32)
        self.released[rows, provider] += 1

    def state(self) -> dict[str, Tensor]:
        """Return the live tensors that make up the state."""
        return {
            "released": self.released,
            "credit": self.credit,
            "present": self.present,
            "arrived": self.arrived,
        }
