"""How clicks follow from logits ``r_k`` and examination ``e_k``.

* independent: every examined item is clicked with probability ``sigmoid(r_k)``, whatever the others
  do (position-based model, Craswell et al. 2008).
* multinomial_logit: at most one click, ``P(k) = e_k exp(r_k) / (sum_j e_j exp(r_j) + exp(c))`` with
  ``c`` the no-click logit (McFadden 1974; RecSim's MultinomialLogitChoiceModel).
* proportional: at most one click, ``P(k) = e_k (r_k - m) / (sum_j e_j (r_j - m) + c - m)`` with the
  least score ``m`` and the no-click score ``c`` (RecSim's MultinomialProportionalChoiceModel).
* exponential_cascade: down the list until the first click, which an item reached gets with
  probability ``e_k min(1, a exp(r_k))`` (RecSim's ExponentialCascadeChoiceModel; ``a`` its
  score scaling, ``e_k`` its attention).
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.users.config import ChoiceConfig

__all__ = ["Choice"]

_LARGEST_LOGIT = 80.0  # exp of it is finite in float32


class Choice:
    """One rule of choice."""

    def __init__(self, config: ChoiceConfig) -> None:
        """Args:
        config: the section ``users.choice``.
        """
        self._config = config
        self.single = config.kind in ("multinomial_logit", "proportional")
        """Whether one number a session, not one a position, decides."""

    def _weights(self, logits: Tensor) -> tuple[Tensor, float]:
        """Return the weights of the items and of no click (multinomial rules), up to a factor."""
        config = self._config
        if config.kind == "proportional":
            return (logits - config.min_score).clamp_(min=0.0), config.no_click - config.min_score
        # Relative to the no-click logit: the ratio is all that counts, and it stays finite.
        return torch.exp((logits - config.no_click).clamp(max=_LARGEST_LOGIT)), 1.0

    def alone(self, logits: Tensor) -> Tensor:
        """Return the click probability of examined items, each alone on its slate, ``[B, M]``."""
        if self._config.kind == "independent":
            return torch.sigmoid(logits)
        if self._config.kind == "exponential_cascade":
            scaled = self._config.score_scaling * torch.exp(logits.clamp(max=_LARGEST_LOGIT))
            return scaled.clamp_(max=1.0)
        weights, nothing = self._weights(logits)
        total = weights + nothing
        return torch.where(total > 0, weights / total.clamp(min=1e-30), 0.0)

    def probability(self, logits: Tensor, examined: Tensor) -> Tensor:
        """Return the click probability of each position of these slates.

        Args:
            logits: float32 ``[B, K]``.
            examined: float32 ``[K]`` or ``[B, K]`` in [0, 1].

        Returns:
            Float32 ``[B, K]``.
        """
        if self._config.kind == "independent":
            return examined * torch.sigmoid(logits)
        if self._config.kind == "exponential_cascade":
            reached = examined * self.alone(logits)
            passed = torch.cumprod(1.0 - reached, dim=1)
            return reached * torch.cat([torch.ones_like(passed[:, :1]), passed[:, :-1]], dim=1)
        weights, nothing = self._weights(logits)
        weights = weights * examined
        total = weights.sum(1, keepdim=True) + nothing
        return torch.where(total > 0, weights / total.clamp(min=1e-30), 0.0)

    def clicks(self, logits: Tensor, examined: Tensor, each: Tensor, one: Tensor) -> Tensor:
        """Draw the clicks.

        Args:
            logits: float32 ``[B, K]``.
            examined: float32 ``[K]`` or ``[B, K]`` in [0, 1].
            each: float32 ``[B, K]``, uniform.
            one: float32 ``[B, 1]``, uniform; used instead by the multinomial rules.

        Returns:
            Float32 ``[B, K]`` of 0 and 1.
        """
        if self._config.kind == "independent":
            return (each < examined * torch.sigmoid(logits)).to(torch.float32)
        if self._config.kind == "exponential_cascade":
            hit = (each < examined * self.alone(logits)).to(torch.float32)
            return hit * (hit.cumsum(1) <= 1)
        upper = self.probability(logits, examined).cumsum(1)
        below = (one < upper).to(torch.float32)
        return torch.diff(below, dim=1, prepend=torch.zeros_like(below[:, :1]))
