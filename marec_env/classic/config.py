"""Configuration of the classic simulators that are no composition of the modules."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from marec_env.config import ConfigModel

__all__ = ["InterestEvolutionConfig", "KuaiSimConfig", "LongTermSatisfactionConfig"]


class InterestEvolutionConfig(ConfigModel):
    """RecSim's interest evolution; the defaults are the published values."""

    budget: float = Field(
        default=200.0, ge=0.001, le=1e6, description="time budget at first, minutes"
    )
    length: float = Field(default=4.0, ge=0.001, le=1e4, description="length of an item, minutes")
    no_click: float = Field(default=1.0, ge=-1, le=50, description="score of clicking nothing")
    min_score: float = Field(
        default=-1.0, ge=-1000, le=-1, description="score subtracted from all before choosing"
    )
    quality_gain: float = Field(
        default=0.9 / 3.4, ge=0, le=0.28, description="budget won a minute watched and quality unit"
    )
    no_click_cost: float = Field(
        default=0.5, ge=0.001, le=1e4, description="budget lost by a slate without a click, minutes"
    )
    step: float = Field(
        default=0.3, ge=0, le=1, description="step of an interest of 0 at a click on its topic"
    )


class LongTermSatisfactionConfig(ConfigModel):
    """RecSim's long-term satisfaction; defaults are the published values but for sensitivity."""

    memory: float = Field(
        default=0.7, ge=0, lt=1, description="share of the net exposure kept a request"
    )
    sensitivity: float = Field(
        default=0.3,
        ge=0,
        le=100,
        description="slope of satisfaction in net exposure; as published 0.01, at which clickbait "
        "wins in the long run as well (above 0.067 it does not)",
    )
    innovation: float = Field(
        default=0.05, ge=0, le=10, description="standard deviation of the exposure's noise"
    )
    clickbait_mean: float = Field(
        default=5.0, ge=0, le=20, description="log engagement of clickbait at satisfaction 1"
    )
    quality_mean: float = Field(
        default=4.0, ge=0, le=20, description="log engagement of quality at satisfaction 1"
    )
    deviation: float = Field(
        default=1.0, ge=0, le=5, description="standard deviation of the log engagement"
    )
    requests: int = Field(default=60, ge=1, le=100_000, description="requests of an episode")


class KuaiSimConfig(ConfigModel):
    """KuaiSim's three levels."""

    level: Literal["request", "session", "cross_session"] = Field(
        default="session",
        description="request: temper falls by 1 a request; session: by the shortfall of the "
        "reward; cross_session: sessions of fixed length, and a return day after each",
    )
    probability: Literal["sigmoid", "double_sigmoid"] = Field(
        default="sigmoid",
        description="double_sigmoid is the published code's: every probability lies in 0.50-0.73",
    )
    similarity: Literal["cosine", "mean_over_factors"] = Field(
        default="cosine",
        description="mean_over_factors is the published code's: a cosine over the number of "
        "factors, which leaves almost no penalty",
    )
    diversity_weight: float = Field(
        default=0.2, ge=0, le=1, description="probability lost at full similarity to the slate"
    )
    temper: float = Field(default=20.0, ge=1, le=1e6, description="temper at first")
    leave_below: float = Field(
        default=1.0, ge=0, le=1e6, description="temper below which a user leaves"
    )
    tolerance: float = Field(
        default=2.0, ge=0.001, le=100, description="mean reward an item at which temper stays level"
    )
    requests: int = Field(
        default=5, ge=1, le=10_000, description="requests a session (cross_session)"
    )
    sessions: int = Field(
        default=6, ge=1, le=10_000, description="sessions an episode (cross_session)"
    )
    return_base: float = Field(
        default=0.4, ge=0, le=1, description="daily return probability without reward"
    )
    return_slope: float = Field(
        default=0.1, ge=0, le=1, description="daily return probability a unit of mean reward"
    )
    return_spread: float = Field(
        default=0.1, ge=0, le=1, description="users differ by up to this in the return probability"
    )
    max_gap: int = Field(default=10, ge=1, le=10_000, description="longest return gap, days")
