"""Drift: how lasting tastes move within an episode. All keep unit length.

* influence: ``u <- normalise(w u + (1 - w) mean of clicked x)`` after a request with clicks
  (SARDINE, Deffayet et al. 2024, with ``w`` = 0.95). The published code takes the mean over items
  *and axes*, one number for all axes, which draws every user to the uniform vector whatever they
  click; ``mean: all_axes`` reproduces it.
* random_walk: ``u <- normalise(u + s n)``, ``n`` normal with variance ``1/d`` an axis, so that a
  step has length about ``s``.
* amplification: ``u <- normalise(u + a sum over clicked (u . x) x)`` (biased assimilation, Dean and
  Morgenstern, "Preference dynamics under personalized recommendations", EC 2022).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import embedding, normalize

from marec_env import random
from marec_env.users.config import DriftConfig

__all__ = ["Drift"]


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
        if config.mean == "all_axes":
            mean = mean.mean(1, keepdim=True).expand_as(taste)
        moved = normalize(mean.lerp(taste, config.inertia), dim=1)
        return torch.where(count > 0, moved, taste)
