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
from marec_env.data.scenarios.world import Category, GeneratedWorld, Vocabulary

__all__ = ["Ecommerce"]

_PRICE_SPREAD = 0.6  # standard deviation of the log price within a category
_OWNED = -6.0  # logits for a product that the user has bought
_FIRST_PRICE, _PRICE_STEP = 12.0, 1.6  # median price of the cheapest category; ratio to the next

_VOCABULARY = Vocabulary(
    categories=(
        Category(
            "Kitchen",
            ("frying pan", "kettle", "knife set", "blender", "coffee grinder", "baking tray"),
            ("compact", "stainless", "family-size", "non-stick", "quiet"),
            (
                "a dishwasher-safe body",
                "a cool-touch handle",
                "a five-year guarantee",
                "a measuring scale inside",
                "an energy-saving base",
            ),
        ),
        Category(
            "Books",
            ("cookbook", "crime novel", "travel guide", "picture book", "history of science"),
            ("illustrated", "paperback", "award-winning", "annotated", "pocket"),
            (
                "large print",
                "a foreword by the author",
                "maps and photographs",
                "a reading ribbon",
                "thick recycled paper",
            ),
        ),
        Category(
            "Sports",
            ("yoga mat", "running shoes", "water bottle", "resistance band", "bike helmet"),
            ("lightweight", "breathable", "professional", "beginner's", "foldable"),
            (
                "a non-slip surface",
                "reflective strips",
                "a carrying strap",
                "a leak-proof cap",
                "shock-absorbing foam",
            ),
        ),
        Category(
            "Garden",
            ("pruning shears", "garden hose", "herb planter", "lawn rake", "bird feeder"),
            ("weatherproof", "ergonomic", "galvanised", "self-watering", "telescopic"),
            (
                "rust-free steel",
                "a wooden grip",
                "a drip tray",
                "frost protection",
                "an easy-fill lid",
            ),
        ),
        Category(
            "Clothing",
            ("rain jacket", "wool sweater", "denim shirt", "summer dress", "hiking trousers"),
            ("organic", "slim-fit", "washable", "lined", "stretch"),
            (
                "deep zip pockets",
                "taped seams",
                "a detachable hood",
                "soft merino yarn",
                "adjustable cuffs",
            ),
        ),
        Category(
            "Toys",
            ("building blocks", "train set", "jigsaw puzzle", "board game", "science kit"),
            ("wooden", "cooperative", "glow-in-the-dark", "magnetic", "educational"),
            (
                "rounded edges",
                "parts for four players",
                "a storage box",
                "rules in six languages",
                "water-based paint",
            ),
        ),
        Category(
            "Furniture",
            ("desk", "bookshelf", "armchair", "bedside table", "shoe cabinet"),
            ("solid oak", "height-adjustable", "space-saving", "upholstered", "stackable"),
            (
                "soft-close drawers",
                "a cable channel",
                "felt pads",
                "hidden fittings",
                "a scratch-resistant top",
            ),
        ),
        Category(
            "Electronics",
            ("headphones", "tablet", "smart watch", "portable speaker", "e-reader"),
            ("wireless", "noise-cancelling", "waterproof", "ultra-thin", "refurbished"),
            (
                "thirty hours of battery life",
                "fast charging",
                "a glare-free display",
                "hands-free calls",
                "two years of updates",
            ),
        ),
    ),
    providers=("Alder", "Brook", "Cobalt", "Dune", "Ember", "Fjord", "Grove", "Harbour"),
    title="{quality} {noun}",
    description="Features: {feature} and {other}. Made by {provider}.",
)


@SCENARIOS.register("ecommerce")
class Ecommerce(Scenario):
    """See the module."""

    vocabulary = _VOCABULARY
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
