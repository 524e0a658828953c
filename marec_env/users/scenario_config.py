"""Typed configuration of what the scenarios add; every one is off by default."""

from __future__ import annotations

from pydantic import Field, field_validator

from marec_env.config import ConfigModel

__all__ = ["FriendsConfig", "HoldingConfig", "PriceConfig", "TirednessConfig", "WearOutConfig"]


_LEAST_MINUTES = 0.01  # below it a loss in logits may become infinite


class PriceConfig(ConfigModel):
    """Sensitivity to the item attribute ``price``."""

    sensitivity: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="logits lost per unit of log price above the user's level; 0 switches off",
    )
    level_spread: float = Field(
        default=0.5, ge=0, le=10, description="standard deviation of users' log price level"
    )


class WearOutConfig(ConfigModel):
    """Fatigue of seeing the same provider (advertiser) again and again."""

    weight: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="logits lost per log(1 + sightings of the provider); 0 switches off",
    )
    memory: float = Field(
        default=0.9, ge=0, lt=1, description="share of the sightings kept from request to request"
    )


class TirednessConfig(ConfigModel):
    """Fatigue of watching (behaviour ``watch_time``)."""

    minutes: float = Field(
        default=0.0,
        ge=0,
        le=100_000,
        description="minutes watched in a session that cost one logit; 0 switches off, else at "
        "least 0.01",
    )

    @field_validator("minutes")
    @classmethod
    def _not_tiny(cls, value: float) -> float:
        if 0.0 < value < _LEAST_MINUTES:
            raise ValueError(f"{value} must be 0 or at least {_LEAST_MINUTES}")
        return value


class FriendsConfig(ConfigModel):
    """Friends who endorse items, and how that moves the user."""

    influence: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="logits won per log(1 + endorsements by friends); 0 switches off",
    )
    near: int = Field(default=6, ge=0, le=1000, description="friends nearest in taste among 'met'")
    chance: int = Field(default=3, ge=0, le=1000, description="friends by chance")
    met: int = Field(default=60, ge=1, le=10_000, description="people whom a user has met")
    activity: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="probability a request that a friend endorses one more item",
    )
    memory: float = Field(
        default=0.9,
        ge=0,
        lt=1,
        description="share of an endorsement's weight kept from request to request",
    )


class HoldingConfig(ConfigModel):
    """How long a purchase is held, and what it earns (item attribute ``risk``, class 1 to 7)."""

    selling_days: float = Field(
        default=0.1, ge=0, le=1, description="probability that a day is one of selling"
    )
    realised_gain: float = Field(
        default=0.148, ge=0, le=1, description="probability of selling a gain on such a day"
    )
    realised_loss: float = Field(
        default=0.098, ge=0, le=1, description="probability of selling a loss on such a day"
    )
    max_days: int = Field(
        default=60, ge=1, le=3650, description="trading days after which holding is cut off"
    )
