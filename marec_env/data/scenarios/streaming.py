"""Streaming: play, completion, watch time.

A click plays a title. The share watched is U-shaped: people give up early or see it through, more
so the better it fits (the usual picture of completion curves; the numbers are an assumption). With
z the click's logit plus noise, completion = σ(1.5 (z - usual)); watch time = completion × length,
in minutes. Lengths are log-normal about a category's median. A title seen through (90 %) is not
offered again by the platform; fatigue within a visit grows with the minutes watched.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.data.config import SyntheticConfig
from marec_env.data.scenarios.base import SCENARIOS, LoggedRequest, Scenario
from marec_env.data.scenarios.numbers import (
    COMPLETION_NOISE,
    COMPLETION_SLOPE,
    SEEN_THROUGH,
    TIRING_MINUTES,
)
from marec_env.data.scenarios.world import GeneratedWorld, read_vocabulary

__all__ = ["Streaming"]

_LENGTH_SPREAD = 0.25  # standard deviation of the log length
_MINUTES = (95.0, 48.0, 25.0, 55.0, 90.0, 24.0, 60.0, 100.0)  # median length of each category


@SCENARIOS.register("streaming")
class Streaming(Scenario):
    """See the module."""

    vocabulary = read_vocabulary("streaming")
    behaviours = ("completion", "watch_time")
    click_rate = 0.1  # an assumption

    def __init__(self, world: GeneratedWorld, config: SyntheticConfig) -> None:
        """Draw lengths."""
        super().__init__(world, config)
        spread = (_LENGTH_SPREAD * world.item_draws("synthetic/length").squeeze(1)).exp()
        self.length = (torch.tensor(_MINUTES)[world.category] * spread).round()
        self.finished = torch.zeros(world.num_users, world.num_items, dtype=torch.bool)
        self.watched_today = torch.zeros(world.num_users)

    def item_attributes(self) -> dict[str, Tensor]:
        """``length_minutes``."""
        return {"length_minutes": self.length}

    def begin_day(self, day: int) -> None:
        """Everybody is rested."""
        self.watched_today.zero_()

    def eligible(self, users: Tensor) -> Tensor:
        """Titles that the user has not seen through."""
        return ~self.finished[users]

    def click_bonus(self, users: Tensor, slate: Tensor) -> Tensor:
        """Minutes watched today tire."""
        return -(self.watched_today[users, None] / TIRING_MINUTES).expand(slate.shape)

    def respond(self, request: LoggedRequest) -> dict[str, Tensor]:
        """Watch some share of each played title."""
        noise = (
            COMPLETION_NOISE
            * torch.erfinv(2.0 * request.draws("synthetic/completion") - 1.0)
            * 2.0**0.5
        )
        drawn = torch.sigmoid(COMPLETION_SLOPE * (request.logit - self.usual + noise))
        completion = drawn * request.click
        minutes = completion * self.length[request.slate]
        users = request.users[:, None].expand_as(request.slate)
        through = completion >= SEEN_THROUGH
        self.finished[users[through], request.slate[through]] = True
        self.watched_today[request.users] += minutes.sum(1)
        return {"completion": completion, "watch_time": minutes}

    def rating(self, behaviours: dict[str, Tensor]) -> Tensor:
        """1 plus 4 times the completion: from three quarters on it counts as liked."""
        return 1.0 + 4.0 * behaviours["completion"]
