"""Which positions of the slate the user looks at.

* position: ``P(look at k) = alpha decay^k`` (Craswell et al., "An experimental comparison of click
  position-bias models", WSDM 2008; geometric as in SARDINE).
* mixed: half of the users browse from the top, half from the bottom:
  ``alpha (decay^k + decay^(K-1-k)) / 2``.
* cascade: the user goes down the list, on to the next with probability ``decay``, and stops at a
  click with probability ``stop_after_click`` (the dependent click model of Guo, Liu and Wang,
  "Efficient multiple-click models in web search", WSDM 2009, with constant lambda).
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.users.config import ExaminationConfig

__all__ = ["Examination"]


class Examination:
    """Probabilities of examination by position, and the stopping rule of the cascade."""

    def __init__(self, config: ExaminationConfig, device: torch.device) -> None:
        """Args:
        config: the section ``users.examination``.
        device: where the probabilities live.
        """
        self._config = config
        self._device = device
        self._by_size: dict[int, Tensor] = {}

    def probability(self, slate_size: int) -> Tensor:
        """Return float32 ``[K]``: the probability of looking at each position, clicks aside."""
        if slate_size not in self._by_size:
            config = self._config
            position = torch.arange(slate_size, dtype=torch.float32, device=self._device)
            curve = config.decay**position
            if config.kind == "mixed":
                curve = (curve + curve.flip(0)) / 2
            self._by_size[slate_size] = config.alpha * curve
        return self._by_size[slate_size]

    def draw(self, slate_size: int, draw: Tensor) -> Tensor:
        """Return what to weigh clicks by: the probabilities ``[K]``, or for the cascade, where one
        number decides how far down the user gets, float32 ``[B, K]`` with 1 where they do.

        Args:
            slate_size: K.
            draw: float32 ``[B, 1]``, uniform (cascade only).
        """
        probability = self.probability(slate_size)
        if self._config.kind != "cascade":
            return probability
        return (draw < probability).to(torch.float32)

    def stop(self, clicks: Tensor, draw: Tensor) -> Tensor:
        """Strike out the clicks after the user has stopped (cascade only).

        Args:
            clicks: float32 ``[B, K]``, clicks if every position reached is examined.
            draw: float32 ``[B, 1]``, uniform; inverted to the number of clicks survived, which is
                geometric, so that one number a session suffices.

        Returns:
            Float32 ``[B, K]``.
        """
        stop = self._config.stop_after_click
        if self._config.kind != "cascade" or stop == 0.0:
            return clicks
        if stop == 1.0:
            allowed = torch.ones_like(draw)
        else:
            allowed = 1.0 + torch.floor(torch.log(draw) / torch.log1p(-torch.tensor(stop)))
        return clicks * (clicks.cumsum(1) <= allowed)
