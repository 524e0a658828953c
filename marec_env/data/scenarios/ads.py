"""Advertising: auction bids, a click-through rate of about half a percent, ad fatigue.

Places are sold in a generalised second-price auction (Edelman, Ostrovsky and Schwarz 2007): the
platform ranks by bid × predicted click rate and the clicked advertiser pays what it needed to keep
its place. Repetition wears out: an advertisement seen n times of late loses 0.5 log(1 + n) logits
(wear-out; the size is an assumption), and the count halves every three days. A click converts in
2 % of cases, more often where it fits. Clicks are far too few to learn tastes from, so the log
also holds the users' own visits to advertisers' pages, as real targeting data does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env import random
from marec_env.data.config import SyntheticConfig
from marec_env.data.scenarios.base import SCENARIOS, LoggedRequest, Scenario
from marec_env.data.scenarios.numbers import (
    CONVERSION_RATE,
    WEAR_OUT,
)
from marec_env.data.scenarios.world import GeneratedWorld, read_vocabulary

__all__ = ["Ads"]

_BID_SPREAD = 0.5  # standard deviation of log bids
_MEDIAN_BID = 0.4  # currency units a click
_FORGETTING = 0.5 ** (1.0 / 3.0)  # of the sightings count after a day: half in three days
_OWN_VISITS = 3  # pages of advertisers that a user opens on a day of activity
_OWN_TASTE = 8.0  # logits per unit of taste in the choice of those pages


@SCENARIOS.register("ads")
class Ads(Scenario):
    """See the module."""

    vocabulary = read_vocabulary("ads")
    behaviours = ("conversion", "payment")
    click_rate = 0.005
    slate_size = 4

    def __init__(self, world: GeneratedWorld, config: SyntheticConfig) -> None:
        """Draw bids."""
        super().__init__(world, config)
        log_bid = _BID_SPREAD * world.item_draws("synthetic/bid").squeeze(1)
        self.log_bid = log_bid
        self.bid = _MEDIAN_BID * log_bid.exp()
        self.seen = torch.zeros(world.num_users, world.num_items)

    def item_attributes(self) -> dict[str, Tensor]:
        """``bid`` in currency units a click."""
        return {"bid": self.bid}

    def begin_day(self, day: int) -> None:
        """Advertisements are half forgotten in three days."""
        self.seen *= _FORGETTING

    def own_visits(self, users: Tensor, keys: Tensor) -> Tensor:
        """Pages of advertisers opened unprompted, int64 ``[a, m]``."""
        world = self.world
        score = _OWN_TASTE * (world.user_taste[users] @ world.item_taste.T) + world.quality
        score = score + random.gumbel(keys, 0, "synthetic/own_visit", world.num_items)
        return score.topk(min(_OWN_VISITS, world.num_items), dim=1).indices

    def ranking_bonus(self, users: Tensor) -> Tensor:
        """The log bid: with the platform's score, a log predicted rate, the auction's score."""
        return self.log_bid.expand(users.shape[0], -1)

    def click_bonus(self, users: Tensor, slate: Tensor) -> Tensor:
        """Fatigue."""
        return -WEAR_OUT * torch.log1p(self.seen[users[:, None], slate])

    def respond(self, request: LoggedRequest) -> dict[str, Tensor]:
        """Convert and pay."""
        self.seen[request.users[:, None], request.slate] += 1.0
        converts = self.follows(CONVERSION_RATE, request.logit)
        conversion = request.click * request.happens(converts, "synthetic/conversion")
        # Worth of a place: bid times click rate. The next place's worth, divided by one's own
        # click rate, is the price; the last place pays the reserve, nothing.
        rate = torch.sigmoid(request.logit)
        worth = self.bid[request.slate] * rate
        below = torch.nn.functional.pad(worth[:, 1:], (0, 1))
        price = torch.minimum(below / rate, self.bid[request.slate])
        return {"conversion": conversion, "payment": request.click * price}

    def rating(self, behaviours: dict[str, Tensor]) -> Tensor:
        """An own visit is 3, a clicked advertisement 4, a conversion 5."""
        return 3.0 + behaviours["click"] + behaviours["conversion"]
