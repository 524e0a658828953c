"""Price sensitivity: what is dearer than a user's level loses logits.

    dearness(i) = log price(i) - median log price of the item's topic,
    loss(u, i)  = sensitivity * max(0, dearness(i) - level(u)),    level ~ N(0, level_spread^2)

A log-price term in the logit of choice is that of discrete choice models of demand (McFadden 1974;
Train, "Discrete choice methods with simulation", 2009, ch. 2); that only what lies above a
reference price counts follows loss aversion about reference prices (Kalyanaram and Winer 1995).
Price is judged within the topic: a cheap tablet is not a dear book.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.catalog.population import Population
from marec_env.users.scenario.config import PriceConfig
from marec_env.users.scenario.traits import needed_attribute, trait

__all__ = ["PriceSense"]

_CHEAPEST = 1e-6  # currency units; keeps the logarithm of a free item finite


class PriceSense:
    """Logits lost to prices; it has no state."""

    def __init__(self, config: PriceConfig, population: Population) -> None:
        """Args:
        config: the section ``users.price``.
        population: its items need the attribute ``price`` (currency units).
        """
        price = needed_attribute(population, "price", "users.price.sensitivity")
        log_price = price.to(torch.float32).clamp(min=_CHEAPEST).log()
        middle = torch.zeros(population.num_topics, device=log_price.device)
        for topic in torch.unique(population.topics):
            middle[topic] = log_price[population.topics == topic].median()
        self._sensitivity = config.sensitivity
        self.dearness = log_price - middle[population.topics]
        """Float32 ``[N]``."""
        self.level = config.level_spread * trait(population, "price_level")
        """Float32 ``[U]``."""

    def loss(self, items: Tensor, users: Tensor) -> Tensor:
        """Return logits lost by int64 ``[B, M]`` items to int64 ``[B]`` users."""
        above = self.dearness[items] - self.level[users].unsqueeze(1)
        return self._sensitivity * above.clamp_(min=0.0)
