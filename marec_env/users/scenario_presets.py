"""The scenarios' users: what each changes in the section ``users``, and their own populations.

A preset ``scenario/<name>`` needs no pipeline and no estimate: its population is the truth behind a
generated log. The environment of the same scenario (:mod:`marec_env.scenarios`) takes the same
changes and estimates the population from the log, as for a real one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from marec_env.catalog.population import Population
from marec_env.data.config import SyntheticConfig
from marec_env.data.intercept import calibrate_intercept
from marec_env.data.population import PopulationConfig, histories, random_click_rate
from marec_env.data.scenarios import SCENARIOS, numbers
from marec_env.data.synthetic import generate

__all__ = ["LIKED_FROM", "SCENARIO_USERS", "scenario_population"]

_HISTORY = 50  # latest items kept of each user
_MANY_LIKED = 4.0  # rating of what is liked, where that is frequent enough to tell tastes
_ALL_COUNT = 3.0  # rating of a mere view, where more is too rare
LIKED_FROM: Mapping[str, float] = MappingProxyType(
    {
        "ecommerce": _ALL_COUNT,
        "streaming": _MANY_LIKED,
        "social": _MANY_LIKED,
        "ads": _ALL_COUNT,
        "finance": _ALL_COUNT,
    }
)
"""By scenario, the rating from which an interaction of the log counts as liked."""
_NO_BOREDOM = {"kind": "none"}


def _patience(cost: float, gain: float) -> dict[str, Any]:
    """Users who may leave at any request, sooner the less they find."""
    return {"kind": "hazard", "hazard": 0.25, "hazard_slope": 1.0, "cost": cost, "gain": gain}


SCENARIO_USERS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "ecommerce": {
            "behaviours": {
                "names": ("cart", "purchase"),
                "cart_rate": round(numbers.CART_RATE, 3),
                "purchase_rate": round(numbers.PURCHASES_PER_CART, 3),
            },
            "price": {"sensitivity": numbers.PRICE_SENSITIVITY},
            "boredom": _NO_BOREDOM,
            "patience": _patience(cost=0.08, gain=1.0),
        },
        "streaming": {
            "behaviours": {"names": ("completion", "watch_time")},
            "tiredness": {"minutes": numbers.TIRING_MINUTES},
            "patience": _patience(cost=0.06, gain=1.0),
        },
        "social": {
            "behaviours": {
                "names": ("like", "share"),
                "like_rate": numbers.LIKE_RATE,
                "share_rate": numbers.SHARE_RATE,
                "readiness_spread": numbers.READINESS_SPREAD,
            },
            "friends": {"influence": numbers.FRIENDS_INFLUENCE},
            "patience": _patience(cost=0.1, gain=0.7),
        },
        "ads": {
            "behaviours": {
                "names": ("conversion", "payment"),
                "conversion_rate": numbers.CONVERSION_RATE,
            },
            "wear_out": {"weight": numbers.WEAR_OUT},
            "boredom": _NO_BOREDOM,
            # Advertisements do not decide how long a visit lasts: four requests on average.
            "patience": {"kind": "hazard", "hazard": 0.25, "hazard_slope": 0.0, "cost": 0.0},
        },
        "finance": {
            "behaviours": {
                "names": ("purchase", "holding_days", "holding_return"),
                "purchase_rate": numbers.ORDER_RATE,
            },
            "boredom": _NO_BOREDOM,
            "patience": _patience(cost=0.04, gain=1.0),
        },
    }
)
"""By scenario, the values that differ from the default users."""


@lru_cache(maxsize=8)
def scenario_population(name: str, seed: int) -> Population:
    """Return the true users and items of a scenario: 300 users, 500 items, ten days of history.

    Topics are the generator's categories; the intercept makes evenly drawn items clicked as the
    log's impressions say.
    """
    sizes = SyntheticConfig(num_users=300, num_items=500, days=10, sessions_per_user=6.0, seed=seed)
    log, world = generate(name, sizes, LIKED_FROM[name])
    scale = SCENARIOS.get(name).relevance
    logits = scale * world.user_taste @ world.item_taste.T + world.quality
    history, liked = histories(log, _HISTORY)
    return Population(
        user_factors=world.user_taste,
        item_factors=world.item_taste,
        quality=world.quality,
        scale=scale,
        intercept=calibrate_intercept(logits, random_click_rate(PopulationConfig(), log)),
        topics=world.category,
        num_topics=len(SCENARIOS.get(name).vocabulary.categories),
        history=history,
        history_liked=liked,
        groups=log.group,
        group_names=log.group_names,
        providers=world.provider,
        item_attributes=log.item_attributes,
        user_attributes=log.user_attributes,
    )
