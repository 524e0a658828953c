"""Scenarios as environments by name: what each changes in the default one.

Every scenario takes the log that :mod:`marec_env.data.synthetic` generates for it and users who
behave as that log's: the same rates and mechanisms (``docs/users.md`` says on what evidence).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from marec_env.config.loader import load_mapping
from marec_env.data.scenarios import SCENARIOS, numbers
from marec_env.environment_config import EnvironmentConfig

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

_AUDITED = ("profile", "recall", "feature", "auditor", "ranking")


def _changes(name: str) -> dict[str, Any]:
    scenario = SCENARIOS.get(name)
    pipeline: dict[str, Any] = {"slate_size": scenario.slate_size}
    if name == "finance":  # only what suits a client may be shown
        pipeline["components"] = _AUDITED
    return {
        "data": {"source": f"synthetic/{name}", "like_threshold": LIKED_FROM[name]},
        "population": {"scale": scenario.relevance},
        "pipeline": pipeline,
        "users": SCENARIO_USERS[name],
    }


SCENARIO_CHANGES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {name: _changes(name) for name in SCENARIO_USERS}
)
"""By scenario, the values that may differ from the default environment."""


def scenario_environment(name: str) -> EnvironmentConfig:
    """Return the environment of a scenario, every other value at its default."""
    return load_mapping(SCENARIO_CHANGES[name], EnvironmentConfig, f"scenario {name}")
