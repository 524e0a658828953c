"""E-commerce: view, cart, purchase, price.

A click opens the product page (a view). Of the views 2.6 % put the product into the cart and of the
carts 32.4 % end in a purchase, on average: the RetailRocket log has 2,664,312 views, 69,332 carts
and 22,457 transactions. Which of them do depends on taste, as the click does. Prices are log-normal
within a category; a product dearer than a user's own level loses logits for click and cart. A
product once bought is not wanted again within the log.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.data.config import SyntheticConfig
from marec_env.data.scenarios.base import SCENARIOS, LoggedRequest, Scenario
from marec_env.data.scenarios.numbers import (
    CART_RATE,
    PRICE_LEVEL_SPREAD,
    PRICE_SENSITIVITY,
    PURCHASES_PER_CART,
)
from marec_env.data.scenarios.world import GeneratedWorld, read_vocabulary

__all__ = ["Ecommerce"]

_PRICE_SPREAD = 0.6  # standard deviation of the log price within a category
_OWNED = -6.0  # logits for a product that the user has bought
_FIRST_PRICE, _PRICE_STEP = 12.0, 1.6  # median price of the cheapest category; ratio to the next


@SCENARIOS.register("ecommerce")
class Ecommerce(Scenario):
    """See the module."""

    vocabulary = read_vocabulary("ecommerce")
    behaviours = ("cart", "purchase")
    click_rate = 0.08  # an assumption; the log names no impressions

    def __init__(self, world: GeneratedWorld, config: SyntheticConfig) -> None:
        """Draw prices and users' price levels."""
        super().__init__(world, config)
        median = _FIRST_PRICE * _PRICE_STEP ** world.category.to(torch.float32)
        spread = _PRICE_SPREAD * world.item_draws("synthetic/price").squeeze(1)
        self.price = (median * spread.exp()).mul(100).round().div(100)
        # What is dear is judged within the category: a cheap tablet is not a dear book.
        self.dearness = spread
        self.level = PRICE_LEVEL_SPREAD * world.user_draws("synthetic/budget").squeeze(1)
        self.owned = torch.zeros(world.num_users, world.num_items, dtype=torch.bool)

    def item_attributes(self) -> dict[str, Tensor]:
        """``price`` in currency units."""
        return {"price": self.price}

    def _too_dear(self, users: Tensor, slate: Tensor) -> Tensor:
        return (self.dearness[slate] - self.level[users, None]).clamp_min(0.0)

    def click_bonus(self, users: Tensor, slate: Tensor) -> Tensor:
        """Prices above the user's level, and products owned, are clicked less."""
        owned = self.owned[users[:, None], slate]
        price = -PRICE_SENSITIVITY * self._too_dear(users, slate)
        return torch.where(owned, price + _OWNED, price)

    def respond(self, request: LoggedRequest) -> dict[str, Tensor]:
        """Put into the cart, then buy."""
        dear = PRICE_SENSITIVITY * self._too_dear(request.users, request.slate)
        cart = request.click * request.happens(
            self.follows(CART_RATE, request.logit - dear), "synthetic/cart"
        )
        purchase = cart * request.happens(
            self.follows(PURCHASES_PER_CART, request.logit - dear), "synthetic/purchase"
        )
        users = request.users[:, None].expand_as(request.slate)
        bought = purchase > 0
        self.owned[users[bought], request.slate[bought]] = True
        return {"cart": cart, "purchase": purchase}

    def rating(self, behaviours: dict[str, Tensor]) -> Tensor:
        """A view is 3, a cart 4, a purchase 5."""
        return 3.0 + behaviours["cart"] + behaviours["purchase"]
