"""Typed configuration of the user simulator: one section a module, ranges and units on each key.

The defaults are those of the preset ``marec``. Every value outside its range is refused when the
section is built, with the name and the allowed range.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from marec_env.config import ConfigModel, between, share

_LEAST_MINUTES = 0.01  # below it a loss in logits may become infinite
_NARROWEST = 1e-6  # a range of exposure that float32 can still divide by


class Off(ConfigModel):
    """Nobody gets bored, tastes stay, users never leave."""

    kind: Literal["none"] = "none"


NoBoredom = Off
NoDrift = Off
NoPatience = Off


class RelevanceConfig(ConfigModel):
    """Adjustment of the calibrated click logit ``scale (u . x) + quality + intercept``."""

    scale_factor: float = between(1.0, 0.001, 100, "factor on the population's calibrated scale")
    intercept_shift: float = between(0.0, -20, 20, "logits added to the calibrated intercept")


class IntentConfig(ConfigModel):
    """A passing interest mixed into the lasting taste."""

    weight: float = share(0.4, "share of the passing intent in the user's present interest")
    switch_probability: float = share(0.1, "probability a request that another intent comes")
    source: Literal["history", "catalog"] = Field(
        default="history",
        description="whose direction an intent takes: an item the user liked before (any item for "
        "a user without likes), or any item of the catalog",
    )


class _Bores(ConfigModel):
    """What every kind of boredom has."""

    susceptible_share: float = share(0.5, "share of the users who get bored; the others never do")


class ContinuousBoredom(_Bores):
    """Exposure to a topic lowers its logit from the first item on."""

    kind: Literal["continuous"] = "continuous"
    weight: float = between(9.0, 0, 100, "logits lost at full boredom, for susceptible users")
    memory: float = Field(
        default=0.75, ge=0, lt=1, description="share of the exposure kept from request to request"
    )
    saturation: float = between(0.3, _NARROWEST, 1, "share of the slate at which boredom is full")


class ThresholdBoredom(ContinuousBoredom):
    """Exposure to a topic lowers its logit from a threshold on."""

    kind: Literal["threshold"] = "threshold"  # type: ignore[assignment]
    threshold: float = share(0.12, "exposure, as share of the slate, at which boredom begins")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.saturation - self.threshold < _NARROWEST:
            raise ValueError(
                f"threshold ({self.threshold}) must lie below saturation ({self.saturation}), by "
                f"at least {_NARROWEST}"
            )
        return self


class ClickBoredomConfig(_Bores):
    """Too many clicks on a topic in a short time bore of it."""

    kind: Literal["loss_of_interest", "churn"] = Field(
        default="loss_of_interest",
        description="loss_of_interest: a bored topic counts as zero; churn: a bored user likes "
        "nothing",
    )
    window: int = between(5, 1, 100, "requests whose clicks count")
    max_clicks: int = between(10, 1, 1000, "latest clicks that count")
    clicks: int = between(5, 1, 1000, "clicks on a topic that bore")
    duration: int = between(5, 1, 1000, "requests that boredom lasts")


BoredomConfig = NoBoredom | ContinuousBoredom | ThresholdBoredom | ClickBoredomConfig
"""How repetition of a topic lowers the user's interest."""


class PositionExamination(ConfigModel):
    """Each position is looked at with a probability of its own."""

    kind: Literal["position", "mixed"] = Field(
        default="position",
        description="position: alpha decay^k; mixed: half of the users from the top, half from the "
        "bottom",
    )
    alpha: float = share(1.0, "probability of examining the first position")
    decay: float = share(0.85, "factor a position")


class CascadeExamination(ConfigModel):
    """Down the list until the user has had enough."""

    kind: Literal["cascade"] = "cascade"
    alpha: float = share(1.0, "probability of examining the first position")
    decay: float = share(0.85, "probability of going on to the next position")
    stop_after_click: float = share(0.0, "probability that a click ends the examination")


ExaminationConfig = PositionExamination | CascadeExamination
"""Which positions the user looks at."""


class IndependentChoice(ConfigModel):
    """Every examined item is clicked or not, whatever the others do."""

    kind: Literal["independent"] = "independent"


class LogitChoice(ConfigModel):
    """At most one click, by multinomial logit."""

    kind: Literal["multinomial_logit"] = "multinomial_logit"
    no_click: float = between(0.0, -50, 50, "logit of no click")


class ProportionalChoice(ConfigModel):
    """At most one click, in proportion to scores."""

    kind: Literal["proportional"] = "proportional"
    no_click: float = between(0.0, -50, 50, "score of no click")
    min_score: float = between(-1.0, -1000, 0, "score subtracted from all before use")

    @model_validator(mode="after")
    def _weight_of_no_click(self) -> Self:
        if self.no_click < self.min_score:
            raise ValueError(
                f"no_click ({self.no_click}) must not lie below min_score ({self.min_score}): the "
                "weight of no click, their difference, would be negative"
            )
        return self


class CascadeChoice(ConfigModel):
    """Down the list until the first click."""

    kind: Literal["exponential_cascade"] = "exponential_cascade"
    score_scaling: float = between(0.5, 0, 1000, "click probability per exponential of the score")


ChoiceConfig = IndependentChoice | LogitChoice | ProportionalChoice | CascadeChoice
"""How clicks follow from relevance and examination."""


class InfluenceDrift(ConfigModel):
    """Tastes move towards clicked items."""

    kind: Literal["influence"] = "influence"
    inertia: float = share(0.95, "share of the taste kept a request with clicks")


class WalkDrift(ConfigModel):
    """Tastes move by noise."""

    kind: Literal["random_walk"] = "random_walk"
    step: float = between(0.02, 0, 10, "standard deviation of the walk a request, of unit length")


class AmplificationDrift(ConfigModel):
    """Tastes move along the liking of clicked items."""

    kind: Literal["amplification"] = "amplification"
    gain: float = between(0.1, 0, 10, "amplification a clicked item")


DriftConfig = NoDrift | InfluenceDrift | WalkDrift | AmplificationDrift
"""How tastes move within an episode."""


class BudgetPatience(ConfigModel):
    """Users leave when their patience is spent."""

    kind: Literal["budget"] = "budget"
    initial: float = between(1.0, 0.001, 1000, "patience at the session's start")
    maximum: float = between(2.0, 0.001, 1000, "patience never exceeds this")
    gain: float = between(1.4, 0, 1000, "patience won at an engagement of 1 (whole slate clicked)")
    cost: float = between(0.17, 0, 1000, "patience spent a request")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.initial > self.maximum:
            raise ValueError(f"initial ({self.initial}) must not exceed maximum ({self.maximum})")
        return self


class HazardPatience(BudgetPatience):
    """Users also leave with a probability that falls with patience."""

    kind: Literal["hazard"] = "hazard"  # type: ignore[assignment]
    hazard: float = share(0.5, "probability of leaving a request at patience 0")
    hazard_slope: float = between(2.0, 0, 1000, "fall of the log hazard per unit of patience")


PatienceConfig = NoPatience | BudgetPatience | HazardPatience
"""When the user leaves a session."""


class SatisfactionConfig(ConfigModel):
    """A running mean of how much the user enjoys what they examine."""

    memory: float = Field(default=0.8, ge=0, lt=1, description="share kept from request to request")
    initial: float = share(0.5, "satisfaction at the episode's start")
    lasting: float = share(
        0.0,
        "share of the enjoyment that lasting taste decides, rather than the interest of the moment",
    )


class ReturnConfig(ConfigModel):
    """Whether and when the user comes back after a session."""

    requests: int = between(0, 0, 10_000, "requests a session holds at most; 0: no limit")
    sessions: int = between(1, 1, 1000, "sessions an episode holds at most")
    bias: float = share(0.1, "daily return probability at satisfaction 0")
    slope: float = between(0.6, 0, 10, "daily return probability added at satisfaction 1")
    max_gap: int = between(30, 1, 10_000, "days after which a user who has not returned is lost")
    recovery: float = between(10.0, 0, 1000, "requests without exposure that a day away is worth")
    trust_initial: float = between(1.0, 0.001, 1000, "trust at the episode's start")
    trust_cost: float = between(0.0, 0, 1000, "trust lost by a session at satisfaction 0")
    trust_break_even: float = between(0.3, 0.001, 1, "satisfaction that leaves trust as it was")


class SupplyConfig(ConfigModel):
    """Items that arrive and age, and providers who leave, in each session's own world."""

    enabled: bool = Field(default=False, description="whether supply changes at all")
    reserve: float = share(0.2, "share of each provider's items not yet there at first")
    arrival: float = share(0.2, "probability a request that one reserve item arrives")
    credit_memory: float = Field(
        default=0.96, ge=0, lt=1, description="share of a provider's credit kept a request"
    )
    credit_initial: float = between(1.0, 0, 1000, "a provider's credit at first, in clicks")
    leave_below: float = between(0.5, 0, 1000, "credit, in clicks, below which a provider leaves")
    aging: float = between(0.0, 0, 10, "logits an item loses a request of age")
    aging_limit: float = between(2.0, 0, 100, "logits an item loses by age at most")


BehaviourName = Literal[
    "like", "purchase", "watch_time", "hide", "cart", "completion", "share", "conversion",
    "payment", "holding_days", "holding_return",
]  # fmt: skip


def _rate(default: float | None, description: str) -> Any:
    return Field(default=default, gt=0, lt=1, description=description)


_FOLLOWS = {"cart": "purchase", "completion": "watch_time"}
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
        3.0, -20, 20, "logits by which purchases are harder than clicks"
    )
    hide_offset: float = between(3.0, -20, 20, "logits of irrelevance from which items are hidden")
    watch_minutes: float = between(10.0, 0.001, 1000, "mean minutes watched at full relevance")
    like_rate: float | None = _rate(None, "likes per click; null: by like_offset")
    cart_rate: float = _rate(0.026, "carts per click (product page viewed)")
    purchase_rate: float | None = _rate(
        None,
        "purchases per cart, or per click where there are no carts; null: by purchase_offset",
    )
    share_rate: float = _rate(0.02, "shares per click")
    conversion_rate: float = _rate(0.02, "conversions per click")
    readiness_spread: float = between(
        0.0, 0, 20, "standard deviation of users' readiness to like and share (with a rate), logits"
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
        0.0, 0, 100, "logits lost per log price above the user's level; 0: none"
    )


class WearOutConfig(ConfigModel):
    """Fatigue of seeing the same provider (advertiser) again and again."""

    weight: float = between(
        0.0, 0, 100, "logits lost per log(1 + sightings of the provider); 0: none"
    )


class TirednessConfig(ConfigModel):
    """Fatigue of watching (behaviour ``watch_time``)."""

    minutes: float = between(
        0.0, 0, 100_000, "minutes watched that cost one logit; 0: none, else at least 0.01"
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
        0.0, 0, 100, "logits won per log(1 + friends' endorsements); 0: none"
    )


class UsersConfig(ConfigModel):
    """The user simulator; the defaults are the preset ``marec``."""

    model: str = Field(
        default="marec", description="a registered user model, or your own as package.module:object"
    )
    new_user_share: float = share(
        0.35, "probability that the recommender has no history of the user"
    )
    relevance: RelevanceConfig = RelevanceConfig()
    intent: IntentConfig = IntentConfig()
    boredom: BoredomConfig = Field(default=ThresholdBoredom(), discriminator="kind")
    examination: ExaminationConfig = Field(default=PositionExamination(), discriminator="kind")
    choice: ChoiceConfig = Field(default=IndependentChoice(), discriminator="kind")
    behaviours: BehaviourConfig = BehaviourConfig()
    drift: DriftConfig = Field(default=NoDrift(), discriminator="kind")
    patience: PatienceConfig = Field(default=BudgetPatience(), discriminator="kind")
    satisfaction: SatisfactionConfig = SatisfactionConfig()
    returning: ReturnConfig = ReturnConfig()
    supply: SupplyConfig = SupplyConfig()
    price: PriceConfig = PriceConfig()
    wear_out: WearOutConfig = WearOutConfig()
    tiredness: TirednessConfig = TirednessConfig()
    friends: FriendsConfig = FriendsConfig()
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
