"""Relevance: the click logit of an item for an interest.

    r = factor * scale * (u . x) + quality + intercept + shift

with ``scale`` and ``intercept`` calibrated on the log (a matrix-factorisation model with item bias:
Koren, Bell and Volinsky, "Matrix factorization techniques for recommender systems", 2009).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding

from marec_env.catalog.population import Population
from marec_env.users.config import RelevanceConfig

__all__ = ["Relevance"]

_DENSE_SHARE = 32  # from a 32nd of the catalog on, one dense product is faster (measured, CPU)


class Relevance:
    """Logits from interests that carry a constant 1 as their last factor.

    The logit's constant part rides along as one more item factor, so that one product of vectors of
    ``d + 1`` gives the whole logit.
    """

    def __init__(self, config: RelevanceConfig, population: Population) -> None:
        """Args:
        config: the section ``users.relevance``.
        population: whose items are rated.
        """
        scale = population.scale * config.scale_factor
        offset = population.quality + (population.intercept + config.intercept_shift)
        self._table = torch.cat([scale * population.item_factors, offset.unsqueeze(1)], dim=1)

    def logits(self, interest: Tensor, items: Tensor | None = None) -> Tensor:
        """Return logits, float32 ``[B, M]`` (or ``[B, N]`` for the whole catalog).

        Args:
            interest: float32 ``[B, d + 1]``, the last factor 1.
            items: int64 ``[B, M]``, or ``None``.
        """
        if items is None:
            return interest @ self._table.T
        if items.shape[1] * _DENSE_SHARE > self._table.shape[0]:
            return (interest @ self._table.T).gather(1, items)
        return torch.bmm(embedding(items, self._table), interest.unsqueeze(2)).squeeze(2)
