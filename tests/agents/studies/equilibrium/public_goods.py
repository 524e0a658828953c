"""A smooth game whose equilibrium, optimum and price of anarchy are known in closed form.

Component ``i`` contributes ``x_i`` in [0, 1]. With benefit ``s``, cost ``c`` and crowding ``g``,

    f_i = 1 + (s / n) Σ_j x_j − (c / 2) x_i² − g x_i Σ_{j ≠ i} x_j,        F = Σ_i f_i.

Everybody gains from everybody's contribution but bears the cost of its own, so selfish play
contributes too little. With zero-mean luck per session the samples are noisy, the means are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from agents.studies.equilibrium.lineups import Payoffs, Sessions
from agents.studies.equilibrium.normal_form import Floats
from marec_env import random

__all__ = ["PublicGoods"]


@dataclass(frozen=True)
class PublicGoods:
    """The game above for ``players`` components of one coordinate each."""

    players: int = 2
    benefit: float = 0.9
    cost: float = 1.0
    crowding: float = 0.1
    noise: float = 0.3
    """Standard deviation of a session's luck: one part common to all, one per contribution."""

    @property
    def components(self) -> tuple[str, ...]:
        """Return the players' names."""
        return tuple(f"player_{i}" for i in range(self.players))

    @property
    def dims(self) -> tuple[int, ...]:
        """Return one coordinate a player."""
        return (1,) * self.players

    def default(self) -> Floats:
        """Return no contribution."""
        return np.zeros(self.players)

    def mean_objectives(self, x: Floats) -> Floats:
        """Return f_i without luck, ``[..., n]``."""
        total = x.sum(axis=-1, keepdims=True)
        return np.asarray(
            1.0
            + self.benefit / self.players * total
            - self.cost / 2.0 * x**2
            - self.crowding * x * (total - x)
        )

    def play(self, decisions: Floats, sessions: Sessions) -> Payoffs:
        """See :meth:`agents.studies.equilibrium.decisions.PipelineGame.play`."""
        keys = random.session_keys(0, torch.as_tensor(sessions))
        luck = self.noise * random.normal(keys, 0, "public_goods", 1 + self.players).numpy()
        objectives = (
            self.mean_objectives(decisions)[:, None, :]
            + luck[None, :, :1]
            + luck[None, :, 1:] * decisions[:, None, :]
        )
        welfare = objectives.sum(axis=-1)
        return Payoffs(objectives, welfare, {"clicks": welfare})

    def equilibrium(self, own_share: float = 1.0) -> Floats:
        """Return the one equilibrium where everybody maximises λ f_i + (1 − λ) F.

        The slope of that in x_i is zero at equal contributions; λ = 1 gives the Nash equilibrium.
        """
        others, shared = self.players - 1, 1.0 - own_share
        benefit = self.benefit * (own_share / self.players + shared)
        slope = self.cost + self.crowding * others * (1.0 + shared)
        return np.full(self.players, min(benefit / slope, 1.0))

    def optimum(self) -> Floats:
        """Return the maximiser of F."""
        return self.equilibrium(own_share=0.0)

    def price_of_anarchy(self, own_share: float = 1.0) -> float:
        """Return F at the equilibrium over F at the optimum."""
        at = [self.mean_objectives(x).sum() for x in (self.equilibrium(own_share), self.optimum())]
        return float(at[0] / at[1])
