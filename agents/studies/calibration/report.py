"""The calibration report: simulated against log, side by side, with distances."""

from __future__ import annotations

import math
from collections.abc import Callable
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
from agents.studies.calibration.sessions import (
    Consumption,
    Simulated,
    consumption_of,
    pooled,
    simulate,
)
from marec_env.catalog.catalog import Catalog
from marec_env.data.log import InteractionLog
from marec_env.data.population import PopulationConfig, random_click_rate
from marec_env.data.propensity import (
    even_click_rate,
    has_propensities,
    item_click_rates,
    item_clicks,
    position_curve,
)
from marec_env.evaluation.statistics import Estimate, gini, mean_estimate
from marec_env.users.base import Users

__all__ = ["Calibration", "Quantity", "calibrate", "jensen_shannon"]

_LOG_BATCHES = 16  # batches of sessions in the demonstration of biased logs
_LOG_SLATE = 10
_TOP = 50  # items recommended to everybody in the demonstration of biased logs
_SMOOTHING = 1.0  # interactions added to every item where its popularity is a logging weight


@dataclass(frozen=True, slots=True)
class Quantity:
    """One line of the table: a quantity in the log and in the simulation."""

    name: str
    unit: str
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
    """Compare the simulated users with their log.

    Args:
        log: the whole log.
        catalog: its items.
        config: how the population was estimated.
        users: built from that population.
        source: what to call the log.
        slate_size: K of the simulated slates.
        max_requests: a simulated session's limit.
        seed: of the simulation.
    """
    topics, num_topics = catalog.topics.cpu(), catalog.num_topics
    popularity = torch.bincount(log.item, minlength=log.num_items) + _SMOOTHING
    sizes = {"slate_size": slate_size, "max_requests": max_requests}
    popular = simulate(users, popularity, topics, num_topics, **sizes, seed=seed)
    even = simulate(users, torch.ones(log.num_items), topics, num_topics, **sizes, seed=seed + 1)
    real = consumption_of(log, topics, num_topics)
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
        comparisons=_compare(log, real, popular, even, rate),
        random_policy={
            "promised": random_click_rate(config, log),
            "measured": mean_estimate(even.first_probability.double().mean(1).numpy()),
            "log_estimate": rate,
            "liked_density": float(log.liked.sum()) / (log.num_users * log.num_items),
            "liked_share": float(log.liked.double().mean()),
        },
        debiasing=_debias(users, popularity, topics, num_topics, seed + 2),
        suggestions=_suggest(rate, real, popular.consumption, tasks),
        topic_shares=topic_share_sweep(log, config, topics, num_topics, seed),
        topic_names=catalog.topic_names,
        distributions=_distributions(log, real, popular.consumption, even),
    )


def jensen_shannon(first: Floats, second: Floats) -> float:
    """Return the Jensen-Shannon divergence of two histograms in bits: 0 equal, 1 disjoint."""
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2
    return float((rel_entr(p, middle).sum() + rel_entr(q, middle).sum()) / (2 * math.log(2)))


def _compare(
    log: InteractionLog,
    real: Consumption,
    popular: Simulated,
    even: Simulated,
    even_rate: float | None,
) -> list[Quantity]:
    def rate(name: str, left: float | None, right: float | None) -> Quantity:
        gap = None if left is None or right is None else abs(left - right)
        return Quantity(name, "", left, right, gap, "difference")

    fake = popular.consumption
    clicks = None if log.impressions is None else _click_rate(log.impressions.behaviours)
    first = float(position_curve(even.impressions, weighted=False)[0])
    names = [name for name in real.rates if name in fake.rates]
    rates = [(n, real.rates.get(n), fake.rates.get(n)) for n in [*names, *real.rates, *fake.rates]]
    lengths = [part.session_lengths.double().numpy() for part in (real, fake)]
    items = [part.item_counts.double().numpy() for part in (real, fake)]
    topics = [part.topic_counts.double().numpy() for part in (real, fake)]

    def distance(
        name: str, unit: str, both: list[Floats], of: Callable[[Floats], float], bits: bool = True
    ) -> Quantity:
        apart = jensen_shannon(*both) if bits else float(wasserstein_distance(*both))
        kind = "Jensen-Shannon, bits" if bits else "Wasserstein"
        return Quantity(name, unit, float(of(both[0])), float(of(both[1])), apart, kind)

    shown = _click_rate(popular.impressions.behaviours)
    asked = float(popular.requests.double().mean())
    return [
        rate("clicks per impression, platform's choice", clicks, shown),
        Quantity("clicks per impression, even choice at the first place", "", even_rate, first),
        *(rate(f"{name} per click", left, right) for name, left, right in dict.fromkeys(rates)),
        distance("clicks per session", "clicks", lengths, np.mean, bits=False),
        Quantity("requests per session", "requests", None, asked),
        distance("concentration on items (Gini)", "", items, gini),
        distance("share of the largest topic", "", topics, lambda n: n.max() / n.sum()),
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


def _debias(
    users: Users, weights: Tensor, topics: Tensor, num_topics: int, seed: int
) -> dict[str, float]:
    """Learn from first requests only: there boredom, which differs from truth, has not begun."""
    sizes = {"slate_size": _LOG_SLATE, "max_requests": 1}
    logs = [
        simulate(users, weights, topics, num_topics, **sizes, seed=seed + n)
        for n in range(_LOG_BATCHES)
    ]
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
