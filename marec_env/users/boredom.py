"""Boredom, of two makes: from what was shown, and from what was clicked.

Boredom as an exposure state per topic: build-up, threshold and recovery.

With ``share`` the share of the slate in the topic, every request

    m <- memory m + (1 - memory) share,
    b = clamp((m - threshold) / (saturation - threshold), 0, 1)     (threshold)
    b = clamp(m / saturation, 0, 1)                                 (continuous)

and the click logit of a topic's item falls by ``weight b`` for susceptible users. Recovery is the
same decay without exposure. Forms of this kind: Leqi et al., "Rebounding bandits for modelling
satiation effects", NeurIPS 2021 (linear dynamics); the threshold is ours: a little repetition costs
nothing.

Boredom by events: too many clicks on one topic in a short time.

The clicks of the last ``window`` requests count, at most the last ``max_clicks`` of them. A topic
with at least ``clicks`` of these is bored for ``duration`` requests; a topic still over the mark
when its boredom ends is bored anew. Two effects (SARDINE, Deffayet et al. 2024):

* loss_of_interest: the bored topic's coordinate of the interest counts as zero;
* churn: while any topic is bored, the whole interest counts as zero ("churn and return").

A session whose user is not susceptible never gets bored.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.errors import ConfigError
from marec_env.users.config import ClickBoredomConfig, ContinuousBoredom, ThresholdBoredom

__all__ = ["ClickBoredom", "ExposureBoredom"]


class ExposureBoredom:
    """Exposure ``m`` of ``B`` sessions to ``T`` topics and the boredom that follows from it."""

    def __init__(
        self, config: ContinuousBoredom, num_sessions: int, topics: Tensor, num_topics: int
    ) -> None:
        """Args:
        config: the section ``users.boredom``, kind threshold or continuous.
        num_sessions: B.
        topics: int64 ``[N]``, the items' topics.
        num_topics: T.
        """
        self._memory = config.memory
        self._start = config.threshold if isinstance(config, ThresholdBoredom) else 0.0
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


_NEVER = -(1 << 30)  # the request of a click that has not been made


class ClickBoredom:
    """Recent clicks and boredom timers of ``B`` sessions and ``T`` topics."""

    def __init__(
        self,
        config: ClickBoredomConfig,
        num_sessions: int,
        num_topics: int,
        num_factors: int,
        device: torch.device,
    ) -> None:
        """Args:
        config: the section ``users.boredom``, kind loss_of_interest or churn.
        num_sessions: B.
        num_topics: T.
        num_factors: d.
        device: where the state lives.

        Raises:
            ConfigError: loss_of_interest where topics are not the axes of the factor space.
        """
        if config.kind == "loss_of_interest" and num_topics != num_factors:
            raise ConfigError(
                f"users.boredom.kind 'loss_of_interest' needs one factor a topic, but there are "
                f"{num_factors} factors and {num_topics} topics; use 'churn' or 'threshold'"
            )
        self._config = config
        self.topics = torch.zeros(num_sessions, config.max_clicks, dtype=torch.int64, device=device)
        """Int64 ``[B, M]``: the topics of the last clicks, oldest first, at the right."""
        self.steps = torch.full_like(self.topics, _NEVER)
        """Int64 ``[B, M]``: in which request they were made."""
        self.remaining = torch.zeros(num_sessions, num_topics, dtype=torch.int64, device=device)
        """Int64 ``[B, T]``: requests of boredom left."""

    def reset(self, rows: Tensor) -> None:
        """Forget all clicks and boredom of the sessions ``rows`` (int64 ``[n]``)."""
        self.steps[rows] = _NEVER
        self.remaining[rows] = 0

    def recent(self, step: Tensor) -> Tensor:
        """Return the clicks that count after request ``step`` (int64 ``[B]``), int64 ``[B, T]``."""
        counted = (self.steps > (step - self._config.window).unsqueeze(1)).to(torch.int64)
        return torch.zeros_like(self.remaining).scatter_add_(1, self.topics, counted)

    def update(self, topics: Tensor, clicks: Tensor, step: Tensor, susceptible: Tensor) -> None:
        """Take one request into account.

        Args:
            topics: int64 ``[B, K]``, of the slate.
            clicks: float32 ``[B, K]``.
            step: int64 ``[B]``, the request's number.
            susceptible: bool ``[B]``, who can get bored.
        """
        size = self.topics.shape[1]
        all_topics = torch.cat([self.topics, topics], dim=1)
        clicked = torch.where(clicks > 0, step.unsqueeze(1), _NEVER)
        all_steps = torch.cat([self.steps, clicked], dim=1)
        valid = all_steps > _NEVER
        # Rank from the right among real clicks; the last `size` of them move to the right end, and
        # what is left over lands in a spare column that is cut off.
        rank = valid.to(torch.int64).flip(1).cumsum(1).flip(1)
        place = torch.where(valid & (rank <= size), size - rank, size)
        self.topics = torch.zeros_like(all_topics[:, : size + 1]).scatter_(1, place, all_topics)[
            :, :size
        ]
        spare = torch.full_like(all_steps[:, : size + 1], _NEVER)
        self.steps = spare.scatter_(1, place, all_steps)[:, :size]

        self.remaining = (self.remaining - 1).clamp_(min=0)
        over = (self.recent(step) >= self._config.clicks) & susceptible.unsqueeze(1)
        self.remaining = torch.where(
            over & (self.remaining == 0), self._config.duration, self.remaining
        )

    def gate(self, interest: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the interest, ``[n, d]``, with what is bored set to zero."""
        bored = (self.remaining if rows is None else self.remaining[rows]) > 0
        if self._config.kind == "churn":
            return interest * ~bored.any(1, keepdim=True)
        return interest * ~bored

    def level(self) -> Tensor:
        """Return the share of the boredom still ahead, float32 ``[B, T]`` in [0, 1]."""
        return self.remaining / self._config.duration

    def room(self, step: Tensor) -> Tensor:
        """Return how many clicks each topic can take in request ``step`` (int64 ``[B]``, the one to
        come) without getting bored, int64 ``[B, T]``.
        """
        return (self._config.clicks - 1 - self.recent(step)).clamp_(min=0)

    def recover(self, rows: Tensor, requests: Tensor) -> None:
        """Forget everything after an absence worth more than the window; keep it otherwise."""
        self.reset(rows[requests >= self._config.window])

    def state(self) -> dict[str, Tensor]:
        """Return the live tensors that make up the state."""
        return {"topics": self.topics, "steps": self.steps, "remaining": self.remaining}
