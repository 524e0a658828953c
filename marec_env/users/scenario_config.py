"""Typed configuration of what follows a click, and of what scenarios add to the wish to click."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from marec_env.config import ConfigModel, between

_LEAST_MINUTES = 0.01  # below it a loss in logits may become infinite


BehaviourName = Literal[
    "like",
    "purchase",
    "watch_time",
    "hide",
    "cart",
    "completion",
    "share",
    "conversion",
    "payment",
    "holding_days",
    "holding_return",
]
_FOLLOWS = {
    "cart": "purchase",
    "completion": "watch_time",
}
_NEEDS_PURCHASE = ("holding_days", "holding_return")


class BehaviourConfig(ConfigModel):
    """What may follow a click; the click itself always is the first behaviour."""

    names: tuple[BehaviourName, ...] = Field(
        default=("like",),
        strict=False,
        description="behaviours after the click, in this order; one that follows another (purchase "
        "after cart, watch_time after completion, holding_days and holding_return after purchase) "
        "comes later",
    )
    like_offset: float = between(0.0, -20, 20, "logits by which a like is harder than a click")
    purchase_offset: float = between(
        3.0, -20, 20, "logits by which a purchase is harder than a click"
    )
    hide_offset: float = between(
        3.0, -20, 20, "logits by which irrelevance must exceed to be hidden"
    )
    watch_minutes: float = between(
        10.0, 0.001, 1000, "minutes watched at full relevance, on average"
    )
    like_rate: float | None = Field(
        default=None, gt=0, lt=1, description="likes per click; null: by like_offset"
    )
    cart_rate: float = Field(
        default=0.026, gt=0, lt=1, description="carts per click (product page viewed)"
    )
    purchase_rate: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="purchases per cart, or per click where there are no carts; null: by "
        "purchase_offset",
    )
    share_rate: float = Field(default=0.02, gt=0, lt=1, description="shares per click")
    conversion_rate: float = Field(default=0.02, gt=0, lt=1, description="conversions per click")
    readiness_spread: float = between(
        0.0,
        0,
        20,
        "standard deviation over users of their readiness to like and share (with a "
        "rate), logits of a click",
    )
    reserve_price: float = between(0.0, 0, 1e6, "least payment for a click, currency units")

    @model_validator(mode="after")
    def _order(self) -> Self:
        names = self.names
        if len(set(names)) != len(names):
            raise ValueError(f"names ({', '.join(names)}) must not repeat")
        for first, then in _FOLLOWS.items():
            if first in names and then in names and names.index(first) > names.index(then):
                raise ValueError(f"names ({', '.join(names)}): {first} must come before {then}")
        for name in _NEEDS_PURCHASE:
            if name in names and "purchase" not in names[: names.index(name)]:
                raise ValueError(f"names ({', '.join(names)}): {name} must come after purchase")
        return self


class PriceConfig(ConfigModel):
    """Sensitivity to the item attribute ``price``."""

    sensitivity: float = between(
        0.0, 0, 100, "logits lost per unit of log price above the user's level; 0 switches off"
    )


class WearOutConfig(ConfigModel):
    """Fatigue of seeing the same provider (advertiser) again and again."""

    weight: float = between(
        0.0, 0, 100, "logits lost per log(1 + sightings of the provider); 0 switches off"
    )


class TirednessConfig(ConfigModel):
    """Fatigue of watching (behaviour ``watch_time``)."""

    minutes: float = between(
        0.0,
        0,
        100_000,
        "minutes watched in a session that cost one logit; 0 switches off, else at least 0.01",
    )

    @field_validator("minutes")
    @classmethod
    def _not_tiny(cls, value: float) -> float:
        if 0.0 < value < _LEAST_MINUTES:
            raise ValueError(f"{value} must be 0 or at least {_LEAST_MINUTES}")
        return value


class FriendsConfig(ConfigModel):
    """Friends who endorse items, and how that moves the user."""

    influence: float = between(
        0.0, 0, 100, "logits won per log(1 + endorsements by friends); 0 switches off"
    )
