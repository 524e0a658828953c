"""Typed configuration of the user simulator: one section a module, ranges and units on each key.

The defaults are those of the preset ``marec``. Every value outside its range is refused when the
section is built, with the name and the allowed range.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from marec_env.config import ConfigModel
from marec_env.users.scenario_config import (
    FriendsConfig,
    HoldingConfig,
    PriceConfig,
    TirednessConfig,
    WearOutConfig,
)

__all__ = [
    "BehaviourConfig",
    "BehaviourName",
    "BoredomConfig",
    "ChoiceConfig",
    "DriftConfig",
    "ExaminationConfig",
    "IntentConfig",
    "PatienceConfig",
    "RelevanceConfig",
    "ReturnConfig",
    "SatisfactionConfig",
    "SupplyConfig",
    "UsersConfig",
]


class RelevanceConfig(ConfigModel):
    """Adjustment of the calibrated click logit ``scale (u . x) + quality + intercept``."""

    scale_factor: float = Field(
        default=1.0, ge=0.001, le=100, description="factor on the population's calibrated scale"
    )
    intercept_shift: float = Field(
        default=0.0,
        ge=-20,
        le=20,
        description="logits added to the population's calibrated intercept",
    )


class IntentConfig(ConfigModel):
    """A passing interest mixed into the lasting taste."""

    weight: float = Field(
        default=0.4,
        ge=0,
        le=1,
        description="share of the passing intent in the user's present interest",
    )
    switch_probability: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="probability a request that a new intent replaces the old one",
    )
    source: Literal["history", "catalog"] = Field(
        default="history",
        description="whose direction an intent takes: an item the user liked before (any item for "
        "a user without likes), or any item of the catalog",
    )


class BoredomConfig(ConfigModel):
    """How repetition of a topic lowers the user's interest."""

    kind: Literal["none", "threshold", "continuous", "loss_of_interest", "churn"] = Field(
        default="threshold",
        description="threshold and continuous: exposure lowers the topic's logit; "
        "loss_of_interest: a bored topic counts as zero; churn: a bored user likes nothing",
    )
    weight: float = Field(
        default=9.0, ge=0, le=100, description="logits lost at full boredom, for susceptible users"
    )
    susceptible_share: float = Field(
        default=0.5, ge=0, le=1, description="share of the users who get bored; the others never do"
    )
    memory: float = Field(
        default=0.75, ge=0, lt=1, description="share of the exposure kept from request to request"
    )
    threshold: float = Field(
        default=0.12,
        ge=0,
        le=1,
        description="exposure, as share of the slate, at which boredom begins",
    )
    saturation: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="exposure, as share of the slate, at which boredom is full",
    )
    window: int = Field(
        default=5, ge=1, le=100, description="requests whose clicks count (loss_of_interest, churn)"
    )
    max_clicks: int = Field(
        default=10, ge=1, le=1000, description="latest clicks that count (loss_of_interest, churn)"
    )
    clicks: int = Field(
        default=5,
        ge=1,
        le=1000,
        description="clicks on a topic that bore (loss_of_interest, churn)",
    )
    duration: int = Field(
        default=5,
        ge=1,
        le=1000,
        description="requests that boredom lasts (loss_of_interest, churn)",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.threshold < self.saturation:
            raise ValueError(
                f"threshold ({self.threshold}) must lie below saturation ({self.saturation})"
            )
        return self


class ExaminationConfig(ConfigModel):
    """Which positions the user looks at."""

    kind: Literal["position", "mixed", "cascade"] = Field(
        default="position",
        description="position: alpha decay^k; mixed: half from the top, half from the bottom; "
        "cascade: down the list until the user has had enough",
    )
    alpha: float = Field(
        default=1.0, ge=0, le=1, description="probability of examining the first position"
    )
    decay: float = Field(
        default=0.85,
        ge=0,
        le=1,
        description="factor a position; for cascade, the probability of going on",
    )
    stop_after_click: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="probability that a click ends the examination (cascade)",
    )


class ChoiceConfig(ConfigModel):
    """How clicks follow from relevance and examination."""

    kind: Literal["independent", "multinomial_logit", "proportional", "exponential_cascade"] = (
        Field(default="independent", description="the rule; all but independent click at most once")
    )
    no_click: float = Field(
        default=0.0,
        ge=-50,
        le=50,
        description="weight of no click: a logit (multinomial_logit) or a score (proportional)",
    )
    min_score: float = Field(
        default=-1.0,
        ge=-1000,
        le=0,
        description="score subtracted from all before use (proportional)",
    )
    score_scaling: float = Field(
        default=0.5, ge=0, le=1000, description="click probability per score (exponential_cascade)"
    )

    @model_validator(mode="after")
    def _weight_of_no_click(self) -> Self:
        if self.kind == "proportional" and self.no_click < self.min_score:
            raise ValueError(
                f"no_click ({self.no_click}) must not lie below min_score ({self.min_score}): the "
                "weight of no click, their difference, would be negative"
            )
        return self


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
    like_offset: float = Field(
        default=0.0, ge=-20, le=20, description="logits by which a like is harder than a click"
    )
    purchase_offset: float = Field(
        default=3.0, ge=-20, le=20, description="logits by which a purchase is harder than a click"
    )
    hide_offset: float = Field(
        default=3.0,
        ge=-20,
        le=20,
        description="logits by which irrelevance must exceed to be hidden",
    )
    watch_minutes: float = Field(
        default=10.0, ge=0.001, le=1000, description="minutes watched at full relevance, on average"
    )
    follow_slope: float = Field(
        default=0.5,
        ge=0,
        le=10,
        description="logits of a behaviour with a rate per logit of the click it follows",
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
    readiness_spread: float = Field(
        default=0.0,
        ge=0,
        le=20,
        description="standard deviation over users of their readiness to like and share (with a "
        "rate), logits of a click",
    )
    completion_offset: float | None = Field(
        default=None,
        ge=-20,
        le=20,
        description="logit of a click on a title half watched; null: the mean one of clicks on "
        "evenly drawn items",
    )
    completion_slope: float = Field(
        default=1.5, ge=0, le=100, description="logits of completion per logit of the click"
    )
    completion_noise: float = Field(
        default=1.5, ge=0, le=100, description="standard deviation of luck in it, click logits"
    )
    reserve_price: float = Field(
        default=0.0, ge=0, le=1e6, description="least payment for a click, currency units"
    )

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


class DriftConfig(ConfigModel):
    """How tastes move within an episode."""

    kind: Literal["none", "influence", "random_walk", "amplification"] = Field(
        default="none",
        description="influence: towards clicked items; random_walk: by noise; amplification: "
        "along the liking of clicked items",
    )
    mean: Literal["per_axis", "all_axes"] = Field(
        default="per_axis",
        description="mean of the clicked items' factors, axis by axis; all_axes is the published "
        "SARDINE code's, one number for all axes, which draws every user to the uniform vector",
    )
    inertia: float = Field(
        default=0.95,
        ge=0,
        le=1,
        description="share of the taste kept a request with clicks (influence)",
    )
    step: float = Field(
        default=0.02,
        ge=0,
        le=10,
        description="standard deviation of the walk a request, of unit length",
    )
    gain: float = Field(default=0.1, ge=0, le=10, description="amplification a clicked item")


class PatienceConfig(ConfigModel):
    """When the user leaves a session."""

    kind: Literal["none", "budget", "hazard"] = Field(
        default="budget",
        description="none: never leaves; budget: leaves when patience is spent; hazard: leaves "
        "with a probability that falls with patience",
    )
    initial: float = Field(
        default=1.0, ge=0.001, le=1000, description="patience at the session's start"
    )
    maximum: float = Field(
        default=2.0, ge=0.001, le=1000, description="patience never exceeds this"
    )
    gain: float = Field(
        default=1.4,
        ge=0,
        le=1000,
        description="patience won at an engagement of 1 (whole slate clicked)",
    )
    cost: float = Field(default=0.17, ge=0, le=1000, description="patience spent a request")
    hazard: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="probability of leaving a request at patience 0 (hazard)",
    )
    hazard_slope: float = Field(
        default=2.0,
        ge=0,
        le=1000,
        description="fall of the log hazard per unit of patience (hazard)",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.initial > self.maximum:
            raise ValueError(f"initial ({self.initial}) must not exceed maximum ({self.maximum})")
        return self


class SatisfactionConfig(ConfigModel):
    """A running mean of how much the user enjoys what they examine."""

    memory: float = Field(default=0.8, ge=0, lt=1, description="share kept from request to request")
    initial: float = Field(
        default=0.5, ge=0, le=1, description="satisfaction at the episode's start"
    )
    lasting: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the enjoyment that lasting taste decides, rather than the interest "
        "of the moment",
    )


class ReturnConfig(ConfigModel):
    """Whether and when the user comes back after a session."""

    requests: int = Field(
        default=0, ge=0, le=10_000, description="requests a session holds at most; 0: no limit"
    )
    sessions: int = Field(default=1, ge=1, le=1000, description="sessions an episode holds at most")
    bias: float = Field(
        default=0.1, ge=0, le=1, description="daily return probability at satisfaction 0"
    )
    slope: float = Field(
        default=0.6, ge=0, le=10, description="daily return probability added at satisfaction 1"
    )
    max_gap: int = Field(
        default=30,
        ge=1,
        le=10_000,
        description="days after which a user who has not returned is lost",
    )
    recovery: float = Field(
        default=10.0,
        ge=0,
        le=1000,
        description="requests without exposure that a day away is worth to boredom",
    )
    trust_initial: float = Field(
        default=1.0, ge=0.001, le=1000, description="trust at the episode's start"
    )
    trust_cost: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="trust lost by a session at satisfaction 0; 0 switches off",
    )
    trust_break_even: float = Field(
        default=0.3,
        ge=0.001,
        le=1,
        description="satisfaction at which a session leaves trust as it was",
    )


class SupplyConfig(ConfigModel):
    """Items that arrive and age, and providers who leave, in each session's own world."""

    enabled: bool = Field(default=False, description="whether supply changes at all")
    reserve: float = Field(
        default=0.2, ge=0, le=1, description="share of each provider's items not yet there at first"
    )
    arrival: float = Field(
        default=0.2, ge=0, le=1, description="probability a request that one reserve item arrives"
    )
    credit_memory: float = Field(
        default=0.96, ge=0, lt=1, description="share of a provider's credit kept a request"
    )
    credit_initial: float = Field(
        default=1.0, ge=0, le=1000, description="a provider's credit at first, in clicks"
    )
    leave_below: float = Field(
        default=0.5, ge=0, le=1000, description="credit, in clicks, below which a provider leaves"
    )
    aging: float = Field(
        default=0.0, ge=0, le=10, description="logits an item loses a request of age"
    )
    aging_limit: float = Field(
        default=2.0, ge=0, le=100, description="logits an item loses by age at most"
    )


class UsersConfig(ConfigModel):
    """The user simulator; the defaults are the preset ``marec``."""

    model: str = Field(
        default="marec", description="a registered user model, or your own as package.module:object"
    )
    new_user_share: float = Field(
        default=0.35,
        ge=0,
        le=1,
        description="probability that the recommender has no history of the user",
    )
    relevance: RelevanceConfig = RelevanceConfig()
    intent: IntentConfig = IntentConfig()
    boredom: BoredomConfig = BoredomConfig()
    examination: ExaminationConfig = ExaminationConfig()
    choice: ChoiceConfig = ChoiceConfig()
    behaviours: BehaviourConfig = BehaviourConfig()
    drift: DriftConfig = DriftConfig()
    patience: PatienceConfig = PatienceConfig()
    satisfaction: SatisfactionConfig = SatisfactionConfig()
    returning: ReturnConfig = ReturnConfig()
    supply: SupplyConfig = SupplyConfig()
    price: PriceConfig = PriceConfig()
    wear_out: WearOutConfig = WearOutConfig()
    tiredness: TirednessConfig = TirednessConfig()
    friends: FriendsConfig = FriendsConfig()
    holding: HoldingConfig = HoldingConfig()
    settings: dict[str, Any] = Field(
        default={}, description="keys of the user model's own, where it is not marec"
    )

    @model_validator(mode="after")
    def _watched(self) -> Self:
        if self.model == "marec" and self.settings:
            raise ValueError(
                f"settings ({', '.join(self.settings)}) have no effect with model 'marec', whose "
                "keys are the other sections; they are for other user models"
            )
        if self.tiredness.minutes > 0 and "watch_time" not in self.behaviours.names:
            raise ValueError("tiredness.minutes above 0 needs watch_time among behaviours.names")
        return self
