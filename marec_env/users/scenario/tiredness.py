"""Tiredness: minutes watched in a session cost logits.

    loss = watched / minutes,    watched <- watched + watch time of the request

An assumption of form: the hazard of ending a viewing session rises with the time spent.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.users.scenario.config import TirednessConfig

__all__ = ["Tiredness"]


class Tiredness:
    """Minutes that ``B`` sessions have watched."""

    def __init__(self, config: TirednessConfig, num_sessions: int, device: torch.device) -> None:
        """Args:
        config: the section ``users.tiredness``, with ``minutes`` above 0.
        num_sessions: B.
        device: where the state lives.
        """
        self._minutes = config.minutes
        self.watched = torch.zeros(num_sessions, device=device)
        """Float32 ``[B]``, minutes."""

    def reset(self, rows: Tensor) -> None:
        """Let the sessions ``rows`` (int64 ``[n]``) begin rested."""
        self.watched[rows] = 0.0

    def loss(self) -> Tensor:
        """Return the logits that every item loses now, float32 ``[B, 1]``."""
        return (self.watched / self._minutes).unsqueeze(1)

    def update(self, watch_time: Tensor) -> None:
        """Add float32 ``[B, K]`` minutes."""
        self.watched += watch_time.sum(1)
