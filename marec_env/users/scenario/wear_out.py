"""Wear-out: an advertiser seen too often of late is clicked less.

    loss(i) = weight * log(1 + n_p),    n_p <- memory n_p + items of provider p shown

Advertisements wear out with repetition (review: Pechmann and Stewart 1988); form and size are
assumptions. A pipeline shows an item once a session, so what is repeated, and wears out, is its
provider.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.catalog.population import Population
from marec_env.errors import ConfigError
from marec_env.users.scenario.config import WearOutConfig

__all__ = ["WearOut"]


class WearOut:
    """Sightings of ``P`` providers by ``B`` sessions."""

    def __init__(self, config: WearOutConfig, num_sessions: int, population: Population) -> None:
        """Args:
        config: the section ``users.wear_out``.
        num_sessions: B.
        population: its ``providers`` must be given.

        Raises:
            ConfigError: the population does not say who offers its items.
        """
        if population.providers is None:
            raise ConfigError(
                "users.wear_out.weight is above 0, but the population has no providers; "
                "set Population.providers or the weight to 0"
            )
        self._config = config
        self._provider = population.providers
        providers = int(population.providers.max()) + 1
        self.seen = torch.zeros(num_sessions, providers, device=population.providers.device)
        """Float32 ``[B, P]``."""

    def reset(self, rows: Tensor) -> None:
        """Forget what the sessions ``rows`` (int64 ``[n]``) saw."""
        self.seen[rows] = 0.0

    def loss(self, items: Tensor) -> Tensor:
        """Return logits lost by int64 ``[B, M]`` items."""
        return self._config.weight * torch.log1p(self.seen.gather(1, self._provider[items]))

    def update(self, slate: Tensor) -> None:
        """Take one slate, int64 ``[B, K]``, into account."""
        once = torch.ones(slate.shape, device=slate.device)
        self.seen.mul_(self._config.memory).scatter_add_(1, self._provider[slate], once)
