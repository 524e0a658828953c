"""Supply: items arrive and age, and providers without an audience leave.

Each session is a world of its own, so that it does not depend on the batch it runs in. A provider's
credit is ``c <- memory c + clicks``; below ``leave_below`` the provider leaves and takes all items
along. With probability ``arrival`` a request one reserve item arrives, of a provider drawn with
weight ``(1 + c)^2`` among those present that have any: success breeds supply (providers that react
to exposure: Zhan et al., "Towards content provider aware recommender systems", WWW 2021). An item
loses ``aging`` logits a request since it appeared, up to ``aging_limit``. Items that arrive later
are the catalog's cold items: nobody has consumed them before.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.catalog.population import Population
from marec_env.errors import ConfigError
from marec_env.users.config import SupplyConfig

__all__ = ["Supply"]


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
        if population.providers is None:
            raise ConfigError(
                "users.supply.enabled is true, but the population has no providers; "
                "set Population.providers or switch supply off"
            )
        self._config = config
        self._provider = population.providers
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
