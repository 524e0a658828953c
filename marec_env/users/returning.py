"""Return: whether and when a user comes back after a session, and trust.

On each day after a session the user returns with probability ``p = clamp(bias + slope * s)``, where
``s`` is the satisfaction that the sessions so far have left, so the gap in days is geometric. A gap
longer than ``max_gap`` loses the user. Trust moves with every session by

    trust <- min(initial, trust + cost * (s / break_even - 1))

and ends the episode at zero. The geometric return day is that of KuaiSim's cross-session level
(Zhao et al., NeurIPS 2023); retention as the outcome of past satisfaction follows Cai et al.,
"Reinforcing user retention in a billion scale short video recommender system", WWW 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.users.config import ReturnConfig

__all__ = ["Returning", "geometric_days"]


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
