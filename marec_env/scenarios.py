"""Scenarios as presets by name: what each changes in the default environment.

Every scenario takes the log that :mod:`marec_env.data.synthetic` generates for it and users who
behave as that log's: the same rates and mechanisms (``docs/users.md`` says on what evidence).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from marec_env.environment_config import EnvironmentConfig

__all__ = ["SCENARIO_CHANGES", "scenario_environment"]

_CARTS_PER_VIEW = 0.026  # RetailRocket: 69,332 carts of 2,664,312 views
_PURCHASES_PER_CART = 0.324  # RetailRocket: 22,457 transactions of 69,332 carts
_TRUE_SCALE = 6.0  # logits per unit of taste with which the logs are generated
_ALL_COUNT = 3.0  # rating from which views count as liked, where more is too rare to tell tastes
_NO_BOREDOM = {"kind": "none", "susceptible_share": 0.0}


def _patience(cost: float, gain: float) -> dict[str, Any]:
    """Users who may leave at any request, sooner the less they find."""
    return {"kind": "hazard", "hazard": 0.25, "hazard_slope": 1.0, "cost": cost, "gain": gain}


SCENARIO_CHANGES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "ecommerce": {
            "data": {"source": "synthetic/ecommerce", "like_threshold": _ALL_COUNT},
            "population": {"scale": _TRUE_SCALE},
            "users": {
                "behaviours": {
                    "names": ("cart", "purchase"),
                    "cart_rate": _CARTS_PER_VIEW,
                    "purchase_rate": _PURCHASES_PER_CART,
                },
                "price": {"sensitivity": 1.0},
                "boredom": _NO_BOREDOM,
                "patience": _patience(cost=0.08, gain=1.0),
            },
        },
        "streaming": {
            "data": {"source": "synthetic/streaming"},
            "population": {"scale": _TRUE_SCALE},
            "users": {
                "behaviours": {"names": ("completion", "watch_time")},
                "tiredness": {"minutes": 120.0},
                "patience": _patience(cost=0.06, gain=1.0),
            },
        },
        "social": {
            "data": {"source": "synthetic/social"},
            "population": {"scale": _TRUE_SCALE},
            "users": {
                "behaviours": {
                    "names": ("like", "share"),
                    "like_rate": 0.1,
                    "share_rate": 0.02,
                    "readiness_spread": 2.4,
                },
                "friends": {"influence": 0.8},
                "patience": _patience(cost=0.1, gain=0.7),
            },
        },
        "ads": {
            "data": {"source": "synthetic/ads", "like_threshold": _ALL_COUNT},
            "population": {"scale": _TRUE_SCALE},
            "pipeline": {"slate_size": 4},
            "users": {
                "behaviours": {"names": ("conversion", "payment"), "conversion_rate": 0.02},
                "wear_out": {"weight": 0.5},
                "boredom": _NO_BOREDOM,
                # Advertisements do not decide how long a visit lasts: four requests on average.
                "patience": {"kind": "hazard", "hazard": 0.25, "hazard_slope": 0.0, "cost": 0.0},
            },
        },
        "finance": {
            "data": {"source": "synthetic/finance", "like_threshold": _ALL_COUNT},
            "population": {"scale": _TRUE_SCALE},
            "pipeline": {
                "slate_size": 5,
                "components": ("profile", "recall", "feature", "auditor", "ranking"),
            },
            "users": {
                "behaviours": {
                    "names": ("purchase", "holding_days", "holding_return"),
                    "purchase_rate": 0.03,
                },
                "boredom": _NO_BOREDOM,
                "patience": _patience(cost=0.04, gain=1.0),
            },
        },
    }
)
"""By scenario, the values that differ from the default environment."""


def _merged(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(base.get(key), dict)
        found[key] = _merged(base[key], value) if nested else value
    return found


def scenario_environment(name: str) -> EnvironmentConfig:
    """Return the environment of a scenario, every other value at its default."""
    return EnvironmentConfig.model_validate(
        _merged(EnvironmentConfig().model_dump(), SCENARIO_CHANGES[name])
    )
