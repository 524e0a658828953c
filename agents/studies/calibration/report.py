"""The calibration report: a log measured, the same sessions simulated, and both compared.

The simulated platform's choices are known, so what biased logs teach is seen beside the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import rel_entr
from scipy.stats import wasserstein_distance
from torch import Tensor

from agents.studies.calibration.click_model import (
    Floats,
    TaskReport,
    judge_click_model,
    topic_share_sweep,
)
from agents.studies.calibration.reference import Reference
from marec_env import random
from marec_env.catalog.catalog import Catalog
from marec_env.data.log import Impressions, InteractionLog
from marec_env.data.population import PopulationConfig, random_click_rate
from marec_env.data.propensity import (
    even_click_rate,
    has_propensities,
    item_click_rates,
    item_clicks,
    position_curve,
)
from marec_env.data.times import session_lengths
from marec_env.evaluation.statistics import Estimate, gini, mean_estimate
from marec_env.users.base import Users

_LOG_BATCHES = 16  # batches of sessions in the demonstration of biased logs
_LOG_SLATE = 10
_TOP = 50  # items recommended to everybody in the demonstration of biased logs
_SMOOTHING = 1.0  # interactions added to every item where its popularity is a logging weight


@dataclass(frozen=True, slots=True)
class Consumption:
    """What was consumed, in a form that logs and simulations share."""

    session_lengths: Tensor
    """Int64 ``[S]``: items consumed in each session, at least 1."""
    item_counts: Tensor
    """Int64 ``[N]``."""
    topic_counts: Tensor
    """Int64 ``[T]``."""
    rates: dict[str, float]
    """Mean of each behaviour over the clicked impressions, or, where nothing is known of those,
    over the consumed items; ``like`` is the share liked unless the impressions hold likes."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """A simulated log."""

    impressions: Impressions
    """``user`` is the session; ``time`` the request."""
    first_probability: Tensor
    """Float32 ``[B, N]``: each session's probability of a click on each item, if examined, before
    the first request."""
    requests: Tensor
    """Int64 ``[B]``: requests until the user left or the limit."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """One line of the table: a quantity in the log and in the simulation."""

    name: str
    log: float | None
    """``None``: the log does not say."""
    simulated: float | None
    distance: float | None = None
    distance_name: str = ""


@dataclass(frozen=True, slots=True)
class Calibration:
    """All that the tables and the page show, and ``calibration.json`` holds."""

    source: str
    fingerprint: str
    size: dict[str, int]
    tasks: list[TaskReport]
    comparisons: list[Quantity]
    random_policy: dict[str, float | Estimate | None]
    """Whether random slates score what the calibration promises; ``None``: the log does not say."""
    debiasing: dict[str, float]
    """The 50 best items for everybody, learned from a log made by popularity, in the simulation:
    click rates of the picks, and what the log seems to say of random items."""
    suggestions: dict[str, float]
    """Settings that would bring the simulation closer to the log, by key."""
    topic_shares: list[tuple[float, float]]
    topic_names: tuple[str, ...]
    distributions: dict[str, dict[str, list[float]]]
    """For plots: per quantity, the values of ``log`` and ``simulated``."""
    reference: Reference | None = None
    """What a language model's users say, where they were asked for."""


def calibrate(
    log: InteractionLog,
    catalog: Catalog,
    config: PopulationConfig,
    users: Users,
    *,
    source: str,
    slate_size: int,
    max_requests: int,
    seed: int = 0,
) -> Calibration:
    """Compare simulated users with the log that their population is of.

    ``config`` says how the population was estimated; slates of ``slate_size`` and at most
    ``max_requests`` a session are simulated.
    """
    topics, num_topics = catalog.topics.cpu(), catalog.num_topics
    popularity = torch.bincount(log.item, minlength=log.num_items) + _SMOOTHING
    popular = simulate(users, popularity, slate_size, max_requests, seed)
    even = simulate(users, torch.ones(log.num_items), slate_size, max_requests, seed + 1)
    real = consumption_of(log, topics, num_topics)
    fake = _clicked(popular.impressions, topics, num_topics)
    tasks = judge_click_model(log, config, topics, num_topics, seed)
    rate = None  # of the first position under even choice, if the log tells
    if log.impressions is not None and has_propensities(log.impressions):
        rate = even_click_rate(log.impressions)
    return Calibration(
        source=source,
        fingerprint=log.fingerprint,
        size={
            "users": log.num_users,
            "items": log.num_items,
            "interactions": log.num_interactions,
            "impressions": 0 if log.impressions is None else log.impressions.user.numel(),
            "simulated sessions": users.num_sessions,
        },
        tasks=tasks,
        comparisons=_compare(log, real, fake, popular, even, rate),
        random_policy={
            "promised": random_click_rate(config, log),
            "measured": mean_estimate(even.first_probability.double().mean(1).numpy()),
            "log_estimate": rate,
            "liked_density": float(log.liked.sum()) / (log.num_users * log.num_items),
            "liked_share": float(log.liked.double().mean()),
        },
        debiasing=_debias(users, popularity, seed + 2),
        suggestions=_suggest(rate, real, fake, tasks),
        topic_shares=topic_share_sweep(log, config, topics, num_topics, seed),
        topic_names=catalog.topic_names,
        distributions=_distributions(log, real, fake, even),
    )


def consumption_of(log: InteractionLog, topics: Tensor, num_topics: int) -> Consumption:
    """Describe a log; topics int64 ``[N]``."""
    rates = {"like": float(log.liked.double().mean())}
    if log.impressions is None:
        rates |= _rates({name: v for name, v in log.behaviours.items() if name != "like"})
    else:  # interactions may hold more than clicks, such as visits of one's own accord
        rates |= _click_rates(log.impressions)
    lengths = session_lengths(log.user, log.time)
    return _counted(lengths, log.item, rates, topics, num_topics)


def _clicked(shown: Impressions, topics: Tensor, num_topics: int) -> Consumption:
    """Describe what was clicked of a simulated log; it does not show who found nothing."""
    clicked = shown.behaviours["click"] > 0
    lengths = torch.bincount(shown.user[clicked])
    rates = _click_rates(shown)
    return _counted(lengths[lengths > 0], shown.item[clicked], rates, topics, num_topics)


def _click_rates(shown: Impressions) -> dict[str, float]:
    clicked = shown.behaviours["click"] > 0
    return _rates({name: values[clicked] for name, values in shown.behaviours.items()})


def _rates(behaviours: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the mean of what is known of each behaviour beside the click."""
    return {
        name: float(values.double().nanmean())
        for name, values in behaviours.items()
        if name != "click" and not bool(values.isnan().all())
    }


def _counted(
    lengths: Tensor, item: Tensor, rates: dict[str, float], topics: Tensor, num_topics: int
) -> Consumption:
    items = torch.bincount(item, minlength=topics.shape[0])
    return Consumption(lengths, items, torch.bincount(topics[item], minlength=num_topics), rates)


def simulate(
    users: Users, weights: Tensor, slate_size: int, max_requests: int, seed: int
) -> Simulated:
    """Show slates drawn without replacement, in proportion to ``weights``, never an item twice.

    Weights are float ``[N]``, positive: equal ones are the random policy, popularity is what a log
    is mostly made by. The ``B`` users begin anew.
    """
    sessions = torch.arange(users.num_sessions)
    keys = random.session_keys(seed, sessions)
    users.reset(keys)
    first = users.click_probability()
    score = weights.to(torch.float32).log().expand(users.num_sessions, -1).clone()
    active = torch.ones(users.num_sessions, dtype=torch.bool)
    requests = torch.zeros(users.num_sessions, dtype=torch.int64)
    logs = []
    for request in range(max_requests):
        noise = random.gumbel(keys, request, "calibration/slate", users.num_items)
        slate = torch.topk(score + noise, slate_size, dim=1).indices
        chosen = torch.gather(score, 1, slate).exp()
        left = score.exp().sum(1, keepdim=True) - (torch.cumsum(chosen, 1) - chosen)
        feedback = users.respond(slate)
        columns = {
            "user": sessions[:, None].expand_as(slate),
            "item": slate,
            "time": torch.full_like(slate, request),
            "position": torch.arange(slate_size).expand_as(slate),
            "propensity": (chosen / left).clamp(max=1.0),
        }
        shown = {name: column[active].flatten() for name, column in columns.items()}
        behaviours = {n: feedback.behaviours[n][active].flatten() for n in users.behaviours}
        logs.append(Impressions(**shown, behaviours=behaviours))
        requests += active
        score.scatter_(1, slate, -math.inf)
        active &= ~feedback.left
        if not bool(active.any()):
            break
    return Simulated(pooled(logs), first, requests)


def pooled(logs: Sequence[Impressions]) -> Impressions:
    """Join several logs; sessions of different logs keep equal numbers."""
    names = ("user", "item", "time", "position", "propensity")
    return Impressions(
        **{name: torch.cat([getattr(log, name) for log in logs]) for name in names},
        behaviours={
            name: torch.cat([log.behaviours[name] for log in logs]) for name in logs[0].behaviours
        },
    )


def jensen_shannon(first: Floats, second: Floats) -> float:
    """Return the Jensen-Shannon divergence of two histograms in bits: 0 equal, 1 disjoint."""
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2
    return float((rel_entr(p, middle).sum() + rel_entr(q, middle).sum()) / (2 * math.log(2)))


def _compare(
    log: InteractionLog,
    real: Consumption,
    fake: Consumption,
    popular: Simulated,
    even: Simulated,
    even_rate: float | None,
) -> list[Quantity]:
    def rate(name: str, left: float | None, right: float | None) -> Quantity:
        gap = None if left is None or right is None else abs(left - right)
        return Quantity(name, left, right, gap, "difference")

    clicks = None if log.impressions is None else _click_rate(log.impressions.behaviours)
    first = float(position_curve(even.impressions, weighted=False)[0])
    names = [name for name in real.rates if name in fake.rates]
    rates = [(n, real.rates.get(n), fake.rates.get(n)) for n in [*names, *real.rates, *fake.rates]]
    lengths = [part.session_lengths.double().numpy() for part in (real, fake)]
    items = [part.item_counts.double().numpy() for part in (real, fake)]
    topics = [part.topic_counts.double().numpy() for part in (real, fake)]

    def distance(
        name: str, both: list[Floats], of: Callable[[Floats], float], bits: bool = True
    ) -> Quantity:
        apart = jensen_shannon(*both) if bits else float(wasserstein_distance(*both))
        kind = "Jensen-Shannon, bits" if bits else "Wasserstein"
        return Quantity(name, float(of(both[0])), float(of(both[1])), apart, kind)

    shown = _click_rate(popular.impressions.behaviours)
    asked = float(popular.requests.double().mean())
    return [
        rate("clicks per impression, platform's choice", clicks, shown),
        Quantity("clicks per impression, even choice at the first place", even_rate, first),
        *(rate(f"{name} per click", left, right) for name, left, right in dict.fromkeys(rates)),
        distance("clicks per session", lengths, np.mean, bits=False),
        Quantity("requests per session", None, asked),
        distance("concentration on items (Gini)", items, gini),
        distance("share of the largest topic", topics, lambda n: n.max() / n.sum()),
    ]


def _click_rate(behaviours: dict[str, Tensor]) -> float:
    return float(behaviours["click"].double().mean())


def _suggest(
    rate: float | None, real: Consumption, fake: Consumption, tasks: list[TaskReport]
) -> dict[str, float]:
    found = {} if rate is None else {"population.random_click_rate": rate}
    # Fitted beside taste and quality, so that better items at the top are not taken for attention.
    for task in tasks:
        if task.name == "shown":
            found["users.examination.decay"] = task.fitted.decay
    likes, wanted = fake.rates.get("like", 0.0), real.rates["like"]
    if 0 < wanted < 1 and 0 < likes < 1:
        # To first order: the offset shifts the logit of a like after a click.
        shift = math.log(likes / (1 - likes)) - math.log(wanted / (1 - wanted))
        found["users.behaviours.like_offset (added)"] = shift
    return found


def _debias(users: Users, weights: Tensor, seed: int) -> dict[str, float]:
    """Learn from first requests only: there boredom, which differs from truth, has not begun."""
    logs = [simulate(users, weights, _LOG_SLATE, 1, seed + n) for n in range(_LOG_BATCHES)]
    truth = torch.stack([log.first_probability.double().mean(0) for log in logs]).mean(0)
    shown, items = pooled([log.impressions for log in logs]), truth.numel()

    def picked(score: Tensor) -> Tensor:
        return torch.topk(score, min(_TOP, items)).indices

    naive = picked(item_clicks(shown, items))
    most_shown = picked(torch.bincount(shown.item, minlength=items))
    return {
        "popular_share": float(torch.isin(naive, most_shown).double().mean()),
        "random": float(truth.mean()),
        "by_clicks": float(truth[naive].mean()),
        "by_weighted_rate": float(truth[picked(item_click_rates(shown, items))].mean()),
        "best": float(truth[picked(truth)].mean()),
        "naive_rate": float(position_curve(shown, weighted=False)[0]),
        "weighted_rate": float(position_curve(shown, weighted=True)[0]),
    }


def _distributions(
    log: InteractionLog, real: Consumption, fake: Consumption, even: Simulated
) -> dict[str, dict[str, list[float]]]:
    positions = {"simulated": position_curve(even.impressions, weighted=False).tolist()}
    if log.impressions is not None:
        known = has_propensities(log.impressions)
        positions["log"] = position_curve(log.impressions, weighted=known).tolist()

    def shares(counts: Tensor) -> list[float]:
        found: list[float] = (counts.double() / counts.sum().clamp_min(1)).tolist()
        return found

    both = {"log": real, "simulated": fake}
    return {
        "session_lengths": {n: part.session_lengths.double().tolist() for n, part in both.items()},
        "positions": positions,
        "popularity": {
            n: sorted(shares(part.item_counts), reverse=True) for n, part in both.items()
        },
        "topics": {n: shares(part.topic_counts) for n, part in both.items()},
    }
