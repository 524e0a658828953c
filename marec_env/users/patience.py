"""Patience: why and when a user leaves a session.

    P <- min(maximum, P + gain * engagement - cost)

* budget: the user leaves when ``P <= 0``. The engagement at which patience stays level is
  ``cost / gain``.
* hazard: the user also leaves with probability ``hazard * exp(-hazard_slope * P)`` a request.

The budget is RecSim's time budget (Ie et al., "RecSim", 2019) in units of engagement; the hazard is
the usual form in survival analysis with a log-linear covariate (Cox 1972).
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.users.config import PatienceConfig

__all__ = ["Patience"]


class Patience:
    """The patience left to each of ``B`` sessions."""

    def __init__(self, config: PatienceConfig, num_sessions: int, device: torch.device) -> None:
        """Args:
        config: the section ``users.patience``.
        num_sessions: B.
        device: where the state lives.
        """
        self._config = config
        self.left = torch.full((num_sessions,), config.initial, device=device)
        """Float32 ``[B]``."""

    def reset(self, rows: Tensor) -> None:
        """Give the sessions ``rows`` (int64 ``[n]``) their initial patience."""
        self.left[rows] = self._config.initial

    def update(self, engagement: Tensor, draw: Tensor) -> Tensor:
        """Take one request into account.

        Args:
            engagement: float32 ``[B]`` in [0, 1].
            draw: float32 ``[B]``, uniform (hazard only).

        Returns:
            Bool ``[B]``: who leaves.
        """
        config = self._config
        self.left.add_(engagement, alpha=config.gain).sub_(config.cost)
        self.left.clamp_(max=config.maximum)
        if config.kind == "none":
            return torch.zeros_like(engagement, dtype=torch.bool)
        spent = self.left <= 0
        if config.kind == "budget":
            return spent
        return spent | (draw < config.hazard * torch.exp(-config.hazard_slope * self.left))

    def scaled(self) -> Tensor:
        """Return patience over its maximum, float32 ``[B]``, in [-1, 1]."""
        return (self.left / self._config.maximum).clamp(-1.0, 1.0)

    def state(self) -> dict[str, Tensor]:
        """Return the live tensors that make up the state."""
        return {"left": self.left}
