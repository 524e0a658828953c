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

from marec_env.catalog.population import Population
from marec_env.compiled import Rows
from marec_env.errors import ConfigError
from marec_env.users.config import (
    ClickBoredomConfig,
    ContinuousBoredom,
    ThresholdBoredom,
    UsersConfig,
)
from marec_env.users.modules import Module, Shown

__all__ = ["ClickBoredom", "ExposureBoredom"]


class ExposureBoredom(Module):
    """Exposure ``m`` of ``B`` sessions to ``T`` topics and the boredom that follows from it; kind
    threshold or continuous.
    """

    def _build(self, config: UsersConfig, population: Population) -> None:
        own = config.boredom
        assert isinstance(own, ContinuousBoredom)
        self._memory = own.memory
        self._start = own.threshold if isinstance(own, ThresholdBoredom) else 0.0
        self._slope = 1.0 / (own.saturation - self._start)
        self.exposure = self._keep("exposure", 0.0, population.num_topics)
        """Float32 ``[B, T]``, in [0, 1]."""

    def _bored(self, exposure: Tensor) -> Tensor:
        return ((exposure - self._start) * self._slope).clamp_(0.0, 1.0)

    def level(self, topics: Tensor | None = None) -> Tensor:
        """Return boredom in [0, 1]: of int64 ``[B, M]`` topics, or of all, ``[B, T]``."""
        return self._bored(self.exposure if topics is None else self.exposure.gather(1, topics))

    def adjust(self, logits: Tensor, shown: Shown) -> Tensor:
        """See :meth:`Module.adjust`."""
        loss = self.level(shown.topics).mul_(shown.susceptibility.unsqueeze(1))
        return logits.sub_(loss)

    def update(self, shown: Shown) -> None:
        """Take the topics of one slate into the exposure."""
        share = (1.0 - self._memory) / shown.topics.shape[1]
        shares = torch.full(shown.topics.shape, share, device=self._device)
        self.exposure.mul_(self._memory).scatter_add_(1, shown.topics, shares)

    def room(self, slate_size: int, step: Tensor) -> Tensor:
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
        return self._bored(exposure + (counts / slate_size)[:, None] * (1.0 - kept))

    def come_back(self, rows: Rows, rested: Tensor, shown: Shown) -> None:
        """Let the exposure decay as over so many requests without any."""
        kept = (self._memory ** rows.of(rested)).unsqueeze(1)
        rows.put(self.exposure, rows.of(self.exposure) * kept)

    def hidden(self, users: Tensor) -> Tensor:
        """Return :meth:`level`."""
        return self.level()


_NEVER = -(1 << 30)  # the request of a click that has not been made


class ClickBoredom(Module):
    """Recent clicks and boredom timers of ``B`` sessions and ``T`` topics; kind loss_of_interest or
    churn.
    """

    def _build(self, config: UsersConfig, population: Population) -> None:
        own, topics, size = config.boredom, population.num_topics, population.user_factors.shape[1]
        assert isinstance(own, ClickBoredomConfig)
        if own.kind == "loss_of_interest" and topics != size:
            raise ConfigError(
                f"users.boredom.kind 'loss_of_interest' needs one factor a topic, but there are "
                f"{size} factors and {topics} topics; use 'churn' or 'threshold'"
            )
        self._own = own
        self.topics = self._keep("topics", 0, own.max_clicks, dtype=torch.int64)
        """Int64 ``[B, M]``: the topics of the last clicks, oldest first, at the right."""
        self.steps = self._keep("steps", _NEVER, own.max_clicks, dtype=torch.int64)
        """Int64 ``[B, M]``: in which request they were made."""
        self.remaining = self._keep("remaining", 0, topics, dtype=torch.int64)
        """Int64 ``[B, T]``: requests of boredom left."""

    def recent(self, step: Tensor) -> Tensor:
        """Return the clicks that count after request ``step`` (int64 ``[B]``), int64 ``[B, T]``."""
        counted = (self.steps > (step - self._own.window).unsqueeze(1)).to(torch.int64)
        return torch.zeros_like(self.remaining).scatter_add_(1, self.topics, counted)

    def update(self, shown: Shown) -> None:
        """Note the clicks and what they bore of; interests are others from now on."""
        step, size = shown.step, self.topics.shape[1]
        topics = torch.cat([self.topics, shown.topics], dim=1)
        clicked = torch.where(shown.found["click"] > 0, step.unsqueeze(1), _NEVER)
        steps = torch.cat([self.steps, clicked], dim=1)
        valid = steps > _NEVER
        # Rank from the right among real clicks; the last `size` of them move to the right end, and
        # what is left over lands in a spare column that is cut off.
        rank = valid.to(torch.int64).flip(1).cumsum(1).flip(1)
        place = torch.where(valid & (rank <= size), size - rank, size)
        for kept, values, empty in ((self.topics, topics, 0), (self.steps, steps, _NEVER)):
            spare = torch.full_like(values[:, : size + 1], empty)
            kept.copy_(spare.scatter_(1, place, values)[:, :size])

        self.remaining.sub_(1).clamp_(min=0)
        over = (self.recent(step) >= self._own.clicks) & (shown.susceptibility > 0).unsqueeze(1)
        self.remaining.masked_fill_(over & (self.remaining == 0), self._own.duration)
        shown.changed = Rows()

    def interest(self, interest: Tensor, rows: Rows) -> Tensor:
        """Return the interest with what is bored set to zero."""
        bored = rows.of(self.remaining) > 0
        return interest * ~(bored.any(1, keepdim=True) if self._own.kind == "churn" else bored)

    def room(self, slate_size: int, step: Tensor) -> Tensor:
        """Return how many clicks each topic can take in request ``step`` (int64 ``[B]``, the one to
        come) without getting bored, int64 ``[B, T]``.
        """
        return (self._own.clicks - 1 - self.recent(step)).clamp_(min=0)

    def come_back(self, rows: Rows, rested: Tensor, shown: Shown) -> None:
        """Forget everything after an absence worth more than the window; keep it otherwise."""
        assert rows.where is not None
        forgotten = Rows(rows.where & (rested >= self._own.window))
        for name, first in self._first.items():
            forgotten.put(self._live[name], first)

    def hidden(self, users: Tensor) -> Tensor:
        """Return the share of the boredom still ahead, float32 ``[B, T]`` in [0, 1]."""
        return self.remaining / self._own.duration
