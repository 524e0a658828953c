"""What may follow a click.

Given a click on an item of logit ``r``, each behaviour is independent of the others but for those
it follows:

* like, purchase: Bernoulli(sigmoid(r - offset)); with a configured rate as in the next line;
* like, cart, purchase, share, conversion with a rate q: Bernoulli(sigmoid(logit q + s (r - c)))
  with ``s`` the slope and ``c`` such that the mean of exp(s (r - c)) over clicks on evenly drawn
  items is 1: rare events keep their rate, and what fits better is followed up more often. Cart and
  purchase lose what the price costs (:mod:`marec_env.users.effects`); like and share gain
  the user's readiness ``h ~ N(-s d^2 / 2, d^2)``, so that few users do most of it (the 90-9-1 rule,
  Nielsen 2006) and the mean rate stays;
* purchase follows a cart where there are carts;
* completion: sigmoid(a (r - offset + N(0, d^2))) with slope a and noise d, the share of a title
  watched: U-shaped, for most plays are given up early or seen through;
* watch_time (minutes): completion times the item attribute ``length_minutes``; without completion
  exponential with mean ``watch_minutes * sigmoid(r)``;
* payment (currency units): what a clicked advertiser owes in the generalised second-price auction,
  ``min(bid, max(reserve, next bid * next rate / own rate))`` with the places ranked by bid times
  click rate (Edelman, Ostrovsky and Schwarz 2007) and ``rate = sigmoid(r)``;
* holding_days, holding_return (percent): :mod:`marec_env.users.behaviours`;
* hide: Bernoulli(sigmoid(-r - offset)) on items examined or not, but never on a clicked one.

The conditional factorisation click, then conversion is that of Ma et al., "Entire space multi-task
model", SIGIR 2018; durations are often taken as exponential in simulators of watch time.

Holding: how long a purchase is kept and what it earns.

The log price of a product of risk class c is a Gaussian walk of daily volatility s_c whose price is
a martingale, ``x <- x + s z - s^2 / 2``: nothing can be earned by skill. On each trading day a
position is sold with probability

    selling_days * (realised_gain if x > 0 else realised_loss),

the disposition effect (Odean 1998, table I: 14.8 % of gains and 9.8 % of losses realised); what is
not sold by ``max_days`` is valued then. Yearly volatilities are within the bands of the summary
risk indicator (PRIIPs regulation (EU) 2017/653, annex II).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from marec_env import random
from marec_env.catalog.population import Population, thinned
from marec_env.data.scenarios.numbers import (
    COMPLETION_NOISE,
    COMPLETION_SLOPE,
    FOLLOW_SLOPE,
    REALISED_GAIN,
    REALISED_LOSS,
    SEEN_THROUGH,
    SELLING_DAYS,
    TRADING_DAYS,
    VOLATILITY,
)
from marec_env.users.base import Shown
from marec_env.users.config import BehaviourConfig, RelevanceConfig
from marec_env.users.effects import PriceSense, needed_attribute, trait
from marec_env.users.modules import Choice
from marec_env.vector import Rows

_CELLS = 1 << 21  # user-item pairs over which rates are centred
MAX_DAYS = 60  # trading days after which what is still held is valued
_SMALLEST = 1e-12  # keeps the quotient of two click rates finite


@dataclass(frozen=True, slots=True)
class _Event:
    """What happens or not: Bernoulli, after a click or what else it follows."""

    total: str
    """Its name in the outcomes."""
    by: str = ""
    """What moves its rate beside the fit: the user's readiness, the price."""
    after: str = "click"
    """What it follows where that is configured."""


_EVENTS = {
    "like": _Event("likes", by="readiness"),
    "cart": _Event("carts", by="price"),
    "purchase": _Event("purchases", by="price", after="cart"),
    "share": _Event("shares", by="readiness"),
    "conversion": _Event("conversions"),
}
_AMOUNTS = {
    "watch_time": "watch_minutes",
    "holding_days": "holding_days",
    "holding_return": "holding_return",
}
_TOTALS = {name: event.total for name, event in _EVENTS.items()} | _AMOUNTS


def follow_centre(logits: Tensor, chance: Tensor, slope: float) -> float:
    """Return ``c`` such that exp(slope (r - c)) is 1 on average over clicks.

    Args:
        logits: float ``[M]``.
        chance: float ``[M]``, the click probabilities.
        slope: logits per logit; 0 gives 0.
    """
    if slope == 0.0:
        return 0.0
    share = chance.to(torch.float64) / chance.to(torch.float64).sum().clamp_min(_SMALLEST)
    tilted = torch.logsumexp(slope * logits.to(torch.float64) + share.clamp_min(1e-300).log(), 0)
    return float(tilted) / slope


class Behaviours:
    """The behaviours beside the click, in configured order."""

    def __init__(
        self, config: BehaviourConfig, population: Population, price: PriceSense | None = None
    ) -> None:
        """Args:
        config: the section ``users.behaviours``.
        population: whose attributes the behaviours need.
        price: what prices cost, if they do.

        Raises:
            ConfigError: an item attribute that a behaviour needs is missing.
        """
        self._config = config
        self._price = price
        self.names: tuple[str, ...] = ("click", *config.names)
        self._attributes = population.item_attributes
        self._limit = population.user_attributes.get("risk_limit")
        self._centre = 0.0
        self._half_watched = 0.0
        if "payment" in config.names:
            self._bid = needed_attribute(population, "bid", "users.behaviours.names payment")
        if "holding_days" in config.names or "holding_return" in config.names:
            risk = needed_attribute(population, "risk", "users.behaviours.names holding_*")
            self._volatility = daily_volatility(risk)
        self._held: tuple[Tensor, Tensor] | None = None
        self._ready: Tensor | None = None
        if config.readiness_spread > 0:
            spread = config.readiness_spread
            ready = spread * trait(population, "readiness")
            self._ready = ready - FOLLOW_SLOPE * spread**2 / 2.0

    def centre(self, relevance: RelevanceConfig, population: Population, choice: Choice) -> None:
        """Set what rates are relative to, from clicks on evenly drawn items.

        Args:
            relevance: the section ``users.relevance``.
            population: users and items.
            choice: how clicks follow from logits.
        """
        rated = {name for name in _EVENTS if getattr(self._config, f"{name}_rate") is not None}
        if not (rated | {"completion"}) & set(self.names):
            return
        who, which = thinned(population.num_users, population.num_items, _CELLS)
        users, items = population.user_factors[who], population.item_factors[which]
        logits = relevance.scale_factor * population.scale * users @ items.T
        shift = population.intercept + relevance.intercept_shift
        logits = (logits + population.quality[which] + shift).flatten()
        chance = choice.alone(logits)
        self._centre = follow_centre(logits, chance, FOLLOW_SLOPE)
        self._half_watched = float((chance * logits).sum() / chance.sum().clamp(min=_SMALLEST))

    def respond(self, clicks: Tensor, shown: Shown, draws: Tensor) -> dict[str, Tensor]:
        """Return every behaviour.

        Args:
            clicks: float32 ``[B, K]``.
            shown: what was shown to whom.
            draws: float32 ``[B, behaviours * K]``, uniform.

        Returns:
            Float32 ``[B, K]`` each, ``click`` first.
        """
        size = clicks.shape[1]
        shown.found = {"click": clicks}
        self._held = None
        for place, name in enumerate(self._config.names):
            draw = draws[:, place * size : (place + 1) * size]
            if name in _EVENTS:
                shown.found[name] = self._event(name, shown, draw)
            else:
                shown.found[name] = getattr(self, f"_{name}")(shown, draw)
        return shown.found

    def outcomes(self, shown: Shown) -> dict[str, Tensor]:
        """Return what the request was worth beside clicks, float32 ``[B]`` each: likes, carts,
        purchases, shares, conversions and finished titles (numbers), watch_minutes, revenue
        (payments, and prices of purchases; currency units), holding_days, holding_return (percent,
        summed over purchases), unsuitable (items shown above the user's risk limit).
        """
        found = shown.found
        totals = {_TOTALS[name]: found[name].sum(1) for name in _TOTALS if name in found}
        if "completion" in found:
            totals["finished"] = (found["completion"] >= SEEN_THROUGH).to(torch.float32).sum(1)
        revenue = [found["payment"].sum(1)] if "payment" in found else []
        if "purchase" in found and "price" in self._attributes:
            revenue.append((found["purchase"] * self._attributes["price"][shown.slate]).sum(1))
        if revenue:
            totals["revenue"] = torch.stack(revenue).sum(0)
        suits = self._suits(shown)
        if suits is not None:
            totals["unsuitable"] = (~suits).to(torch.float32).sum(1)
        return totals

    def _suits(self, shown: Shown) -> Tensor | None:
        """Return whether an item's risk is within the user's limit, bool ``[B, K]``."""
        if self._limit is None or "risk" not in self._attributes:
            return None
        return self._attributes["risk"][shown.slate] <= self._limit[shown.users].unsqueeze(1)

    def _event(self, name: str, shown: Shown, draw: Tensor) -> Tensor:
        event, logits = _EVENTS[name], shown.logits
        rate = getattr(self._config, f"{name}_rate")
        if rate is None:
            chance = torch.sigmoid(logits - getattr(self._config, f"{name}_offset"))
        else:
            if event.by == "readiness" and self._ready is not None:
                logits = logits + self._ready[shown.users].unsqueeze(1)
            if event.by == "price" and self._price is not None:
                logits = self._price.adjust(logits, shown)
            base = math.log(rate / (1.0 - rate))
            chance = torch.sigmoid(base + FOLLOW_SLOPE * (logits - self._centre))
        found = shown.found.get(event.after, shown.found["click"]) * (draw < chance)
        # An order beyond what suits the client is refused (MiFID II, article 25).
        suits = self._suits(shown) if name == "purchase" else None
        return found if suits is None else found * suits

    def _completion(self, shown: Shown, draw: Tensor) -> Tensor:
        luck = COMPLETION_NOISE * math.sqrt(2.0) * torch.erfinv(2.0 * draw - 1.0)
        reached = COMPLETION_SLOPE * (shown.logits - self._half_watched + luck)
        return shown.found["click"] * torch.sigmoid(reached)

    def _watch_time(self, shown: Shown, draw: Tensor) -> Tensor:
        minutes = self._config.watch_minutes
        completion = shown.found.get("completion")
        if completion is None:
            mean = minutes * torch.sigmoid(shown.logits)
            return shown.found["click"] * mean * -torch.log(draw)
        length = self._attributes.get("length_minutes")
        return completion * (minutes if length is None else length[shown.slate])

    def _payment(self, shown: Shown, draw: Tensor) -> Tensor:
        rate = torch.sigmoid(shown.logits)
        bid = self._bid[shown.slate]
        below = torch.nn.functional.pad((bid * rate)[:, 1:], (0, 1))
        price = (below / rate.clamp(min=_SMALLEST)).clamp(min=self._config.reserve_price)
        return shown.found["click"] * torch.minimum(price, bid)

    def _holding(self, shown: Shown) -> tuple[Tensor, Tensor]:
        if self._held is None:
            daily = self._volatility[shown.slate]
            self._held = hold(shown.found["purchase"], daily, shown.keys, shown.step)
        return self._held

    def _holding_days(self, shown: Shown, draw: Tensor) -> Tensor:
        return self._holding(shown)[0]

    def _holding_return(self, shown: Shown, draw: Tensor) -> Tensor:
        return self._holding(shown)[1]

    def _hide(self, shown: Shown, draw: Tensor) -> Tensor:
        chance = torch.sigmoid(-shown.logits - self._config.hide_offset)
        return (1 - shown.found["click"]) * (draw < chance)


def daily_volatility(risk: Tensor) -> Tensor:
    """Return the daily volatility of risk classes 1 to 7, float32 ``[...]`` each."""
    which = (risk.to(torch.int64) - 1).clamp(0, len(VOLATILITY) - 1)
    yearly = torch.tensor(VOLATILITY, device=risk.device)
    return yearly[which] / math.sqrt(TRADING_DAYS)


def hold(
    purchase: Tensor,
    volatility: Tensor,
    keys: Tensor,
    step: Tensor,
    sold_a_day: tuple[float, float] = (SELLING_DAYS * REALISED_GAIN, SELLING_DAYS * REALISED_LOSS),
    horizon: int = MAX_DAYS,
) -> tuple[Tensor, Tensor]:
    """Hold what was bought.

    Args:
        purchase: float32 ``[B, K]``, 1 where an item was bought.
        volatility: float32 ``[B, K]``, of the items' log prices a day.
        keys: int64 ``[B]``, the sessions' keys.
        step: int64 ``[B]``, the request's number.
        sold_a_day: probabilities that a gain and that a loss is sold on a day.
        horizon: trading days after which holding is cut off.

    Returns:
        Trading days held and the return in percent of the price paid, float32 ``[B, K]`` each, 0
        where nothing was bought.
    """
    days, earned = torch.zeros_like(purchase), torch.zeros_like(purchase)
    rows = Rows(purchase.flatten() > 0)
    if not rows:
        return days, earned
    # One stream of keys a position, so that two purchases of one request differ.
    place = torch.arange(purchase.shape[1], device=purchase.device)
    own = random.session_keys(0, rows.of((keys.unsqueeze(1) + place).flatten()))
    step = rows.of(step.unsqueeze(1).expand(purchase.shape).flatten())
    daily = rows.of(volatility.flatten()).unsqueeze(1)
    walk = daily * random.normal(own, step, "users/holding_price", horizon)
    walk = (walk - daily.square() / 2).cumsum(1)
    sold = random.uniform(own, step, "users/holding_sale", horizon) < torch.where(
        walk > 0, *sold_a_day
    )
    sold[:, -1] = True
    last = sold.to(torch.int8).argmax(1, keepdim=True)
    rows.put(days.view(-1), (last.squeeze(1) + 1).to(torch.float32))
    rows.put(earned.view(-1), 100.0 * torch.expm1(walk.gather(1, last).squeeze(1)))
    return days, earned
