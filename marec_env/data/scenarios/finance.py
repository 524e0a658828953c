"""Finance: risk class, suitability limits, holding.

Products carry the seven risk classes of the European summary risk indicator (PRIIPs regulation);
yearly volatility grows with the class. Users have a risk limit, and the platform may only show what
is suitable (MiFID II). A view turns into a purchase in 3 % of cases (assumption). Positions are
held until sold; gains are sold more readily than losses: on a day of selling, 14.8 % of gains and
9.8 % of losses are realised (Odean 1998, disposition effect), and a tenth of the days is a day of
selling (assumption).
``holding_days`` ends with the log for what is still held then (``sold`` 0: censored).
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env import random
from marec_env.data.config import SyntheticConfig
from marec_env.data.scenarios.base import SCENARIOS, LoggedRequest, Scenario
from marec_env.data.scenarios.numbers import (
    ORDER_RATE,
    REALISED_GAIN,
    REALISED_LOSS,
    SELLING_DAYS,
    TRADING_DAYS,
    VOLATILITY,
)
from marec_env.data.scenarios.world import GeneratedWorld, read_vocabulary

__all__ = ["Finance"]

_CLASSES = 7
_CLASS_OF_CATEGORY = (1, 2, 3, 4, 5, 6)  # middle class of each category; ± 1 at random
_LIKED_DAYS = 14.0  # held as long: liked most


@SCENARIOS.register("finance")
class Finance(Scenario):
    """See the module."""

    vocabulary = read_vocabulary("finance")
    behaviours = ("purchase", "holding_days", "sold")
    click_rate = 0.06  # an assumption
    slate_size = 5

    def __init__(self, world: GeneratedWorld, config: SyntheticConfig) -> None:
        """Draw risk classes, limits and prices."""
        super().__init__(world, config)
        middle = torch.tensor(_CLASS_OF_CATEGORY)[world.category]
        step = random.integers(world.item_keys, 0, "synthetic/risk", 1, 3).squeeze(1) - 1
        self.risk = (middle + step).clamp(1, _CLASSES)
        limit = random.integers(world.user_keys, 0, "synthetic/limit", 2, _CLASSES) + 1
        # The larger of two draws: few people accept the lowest classes only.
        self.limit = limit.max(1).values
        yearly = torch.tensor(VOLATILITY)[self.risk - 1]
        daily = yearly[:, None] / TRADING_DAYS**0.5
        returns = daily * world.item_draws("synthetic/returns", config.days) - daily.square() / 2
        self.log_price = torch.cumsum(returns, 1)  # [N, days], of a martingale
        self.day = 0
        self.answered = 0  # impressions so far; open positions remember their place among them
        none = torch.zeros(0, dtype=torch.int64)
        self.open = {"place": none, "user": none, "item": none, "day": none}
        self.closed: list[tuple[Tensor, Tensor]] = []

    def item_attributes(self) -> dict[str, Tensor]:
        """``risk``: class 1 (lowest) to 7."""
        return {"risk": self.risk.to(torch.float32)}

    def user_attributes(self) -> dict[str, Tensor]:
        """``risk_limit``: the highest class that is suitable."""
        return {"risk_limit": self.limit.to(torch.float32)}

    def eligible(self, users: Tensor) -> Tensor:
        """Products that suit the user."""
        return self.risk <= self.limit[users, None]

    def begin_day(self, day: int) -> None:
        """Sell some of what is held."""
        self.day = day
        held = self.open
        if held["place"].numel() == 0:
            return
        gain = self.log_price[held["item"], day] > self.log_price[held["item"], held["day"]]
        keys = random.session_keys(self.config.seed, held["place"])
        chance = random.uniform(keys, day, "synthetic/sell", 1).squeeze(1)
        rate = SELLING_DAYS * torch.where(gain, REALISED_GAIN, REALISED_LOSS)
        sold = chance < rate
        self.closed.append((held["place"][sold], day - held["day"][sold]))
        self.open = {name: values[~sold] for name, values in held.items()}

    def respond(self, request: LoggedRequest) -> dict[str, Tensor]:
        """Buy."""
        buys = self.follows(ORDER_RATE, request.logit)
        purchase = request.click * request.happens(buys, "synthetic/purchase")
        row, column = torch.nonzero(purchase, as_tuple=True)
        bought = {
            "place": self.answered + row * request.slate.shape[1] + column,
            "user": request.users[row],
            "item": request.slate[row, column],
            "day": torch.full_like(row, request.day),
        }
        self.open = {name: torch.cat([self.open[name], bought[name]]) for name in bought}
        self.answered += request.slate.numel()
        zero = torch.zeros_like(purchase)
        return {"purchase": purchase, "holding_days": zero, "sold": zero.clone()}

    def finish(self, behaviours: dict[str, Tensor]) -> dict[str, Tensor]:
        """Fill in how long each purchase was held."""
        days, sold = behaviours["holding_days"].clone(), behaviours["sold"].clone()
        for place, held in self.closed:
            days[place] = held.to(torch.float32)
            sold[place] = 1.0
        days[self.open["place"]] = (self.config.days - self.open["day"]).to(torch.float32)
        return {**behaviours, "holding_days": days, "sold": sold}

    def rating(self, behaviours: dict[str, Tensor]) -> Tensor:
        """A view is 3, a purchase 4, one held for a fortnight or more 5."""
        kept = (behaviours["holding_days"] >= _LIKED_DAYS).to(torch.float32)
        return 3.0 + behaviours["purchase"] * (1.0 + kept)
