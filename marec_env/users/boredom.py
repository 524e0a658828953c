"""Boredom as an exposure state per topic: build-up, threshold and recovery.

With ``share`` the share of the slate in the topic, every request

    m <- memory m + (1 - memory) share,
    b = clamp((m - threshold) / (saturation - threshold), 0, 1)     (threshold)
    b = clamp(m / saturation, 0, 1)                                 (continuous)

and the click logit of a topic's item falls by ``weight b`` for susceptible users. Recovery is the
same decay without exposure. Forms of this kind: Leqi et al., "Rebounding bandits for modelling
satiation effects", NeurIPS 2021 (linear dynamics); the threshold is ours: a little repetition costs
nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.users.config import BoredomConfig

__all__ = ["ExposureBoredom"]


class ExposureBoredom:
    """Exposure ``m`` of ``B`` sessions to ``T`` topics and the boredom that follows from it."""

    def __init__(
        self, config: BoredomConfig, num_sessions: int, topics: Tensor, num_topics: int
    ) -> None:
        """Args:
        config: the section ``users.boredom``, kind threshold or continuous.
        num_sessions: B.
        topics: int64 ``[N]``, the items' topics.
        num_topics: T.
        """
        self._memory = config.memory
        self._start = config.threshold if config.kind == "threshold" else 0.0
        self._slope = 1.0 / (config.saturation - self._start)
        self._topics = topics
        self.exposure = torch.zeros(num_sessions, num_topics, device=topics.device)
        """Float32 ``[B, T]``, in [0, 1]."""

    def reset(self, rows: Tensor) -> None:
        """Forget all exposure of the sessions ``rows`` (int64 ``[n]``)."""
        self.exposure[rows] = 0.0

    def level(self, topics: Tensor | None = None) -> Tensor:
        """Return boredom in [0, 1]: of int64 ``[B, M]`` topics, or of all, ``[B, T]``."""
        exposure = self.exposure if topics is None else self.exposure.gather(1, topics)
        return ((exposure - self._start) * self._slope).clamp_(0.0, 1.0)

    def update(self, topics: Tensor) -> None:
        """Take the topics of one slate, int64 ``[B, K]``, into the exposure."""
        share = torch.full(
            topics.shape, (1.0 - self._memory) / topics.shape[1], device=topics.device
        )
        self.exposure.mul_(self._memory).scatter_add_(1, topics, share)

    def room(self, slate_size: int) -> Tensor:
        """Return how many items of each topic fit into a slate without boredom at the next request,
        int64 ``[B, T]``: the largest ``n`` with ``memory m + (1 - memory) n / K <= threshold``.
        """
        slack = (self._start - self._memory * self.exposure) / (1.0 - self._memory)
        # The small margin keeps a quotient that is whole in exact arithmetic from falling short.
        return torch.floor(slack * slate_size + 1e-4).clamp_(min=0).to(torch.int64)

    def ahead(self, counts: Tensor, slate_size: int, requests: Tensor) -> Tensor:
        """Return boredom if slates hold so many items of each topic from now on.

        Args:
            counts: float32 ``[C]``, items of the topic in every slate.
            slate_size: K.
            requests: float32 ``[H]``, how many such slates ahead.

        Returns:
            Float32 ``[B, T, C, H]`` in [0, 1].
        """
        kept = self._memory**requests
        exposure = self.exposure[:, :, None, None] * kept
        exposure = exposure + (counts / slate_size)[:, None] * (1.0 - kept)
        return ((exposure - self._start) * self._slope).clamp_(0.0, 1.0)

    def recover(self, rows: Tensor, requests: Tensor) -> None:
        """Let the exposure of ``rows`` decay as over float32 ``[n]`` requests without any."""
        self.exposure[rows] *= (self._memory**requests).unsqueeze(1)

    def state(self) -> dict[str, Tensor]:
        """Return the live tensors that make up the state."""
        return {"exposure": self.exposure}
