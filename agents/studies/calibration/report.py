"""The calibration report: simulated against log, side by side, with distances."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from agents.studies.calibration.click_model import TaskReport, judge_click_model, topic_share_sweep
from agents.studies.calibration.metrics import jensen_shannon, wasserstein
from agents.studies.calibration.sessions import Consumption, consumption_of
from agents.studies.calibration.simulated import Simulated, pooled, simulate
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
from marec_env.evaluation.statistics import Estimate, mean_estimate
from marec_env.inequality import gini

if TYPE_CHECKING:
    from marec_env.users.base import Users

__all__ = ["Calibration", "Quantity", "Debiasing", "RandomPolicy", "calibrate"]

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
    distance: float | None
    distance_name: str


@dataclass(frozen=True, slots=True)
class RandomPolicy:
    """Whether random slates score what the calibration promises."""

    promised: float
    """``population.random_click_rate``: clicks per examined item."""
    measured: Estimate
    """In the simulation: click probability of an even draw from the catalog, before any boredom."""
    log_estimate: float | None
    """From the log's impressions by inverse propensities; ``None`` if it has none."""
    liked_density: float
    """Share of the log's user-item matrix that is liked: the rate if all unseen items were not."""
    liked_share: float
    """Share of the consumed items that are liked: the rate if users chose what to consume blindly.
    The truth for random items lies between these two."""


@dataclass(frozen=True, slots=True)
class Debiasing:
    """The 50 best items for everybody, learned from a log made by popularity, in the simulation."""

    popular_share: float
    """Share of the picks by clicks that are among the 50 most shown items."""
    random: float
    """True click probability of an even draw; likewise of the 50 picked by ..."""
    by_clicks: float
    by_weighted_rate: float
    best: float
    naive_rate: float
    """Click rate of the log at the first position, taken for that of random items; and repaired."""
    weighted_rate: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """All that the table and the page show."""

    source: str
    fingerprint: str
    size: dict[str, int]
    tasks: list[TaskReport]
    comparisons: list[Quantity]
    random_policy: RandomPolicy
    debiasing: Debiasing
    suggestions: dict[str, float]
    """Settings that would bring the simulation closer to the log, by key."""
    topic_shares: list[tuple[float, float]]
    topic_names: tuple[str, ...]
    distributions: dict[str, dict[str, list[float]]]
    """For plots: per quantity, the values of ``log`` and ``simulated``."""

    def as_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return asdict(self)


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
    consumed = torch.bincount(log.item, minlength=log.num_items)
    sizes = {"slate_size": slate_size, "max_requests": max_requests}
    by_popularity = simulate(users, consumed + _SMOOTHING, topics, num_topics, **sizes, seed=seed)
    evenly = simulate(users, torch.ones(log.num_items), topics, num_topics, **sizes, seed=seed + 1)
    real = consumption_of(log, topics, num_topics)
    tasks = judge_click_model(log, config, topics, num_topics, seed)
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
        comparisons=_compare(log, real, by_popularity, evenly),
        random_policy=_random_policy(log, config, evenly),
        debiasing=_debias(users, consumed + _SMOOTHING, topics, num_topics, seed + 2),
        suggestions=_suggest(log, real, by_popularity.consumption, tasks),
        topic_shares=topic_share_sweep(log, config, topics, num_topics, seed),
        topic_names=catalog.topic_names,
        distributions=_distributions(log, real, by_popularity, evenly),
    )


def _compare(
    log: InteractionLog, real: Consumption, popular: Simulated, even: Simulated
) -> list[Quantity]:
    fake = popular.consumption
    rows = [
        _rate("clicks per impression, platform's choice", _click_rate(log), popular),
        Quantity(
            "clicks per impression, even choice at the first place",
            "",
            _even_rate(log),
            float(position_curve(even.impressions, weighted=False)[0]),
            None,
            "",
        ),
    ]
    names = [name for name in real.rates if name in fake.rates]
    names += [name for name in (*real.rates, *fake.rates) if name not in names]
    for name in dict.fromkeys(names):
        left, right = real.rates.get(name), fake.rates.get(name)
        gap = None if left is None or right is None else abs(left - right)
        rows.append(Quantity(f"{name} per click", "", left, right, gap, "difference"))
    lengths = [part.session_lengths.double().numpy() for part in (real, fake)]
    rows.append(
        Quantity(
            "clicks per session",
            "clicks",
            float(lengths[0].mean()),
            float(lengths[1].mean()),
            wasserstein(*lengths),
            "Wasserstein",
        )
    )
    rows.append(
        Quantity(
            "requests per session",
            "requests",
            None,
            float(popular.requests.double().mean()),
            None,
            "",
        )
    )
    items = [part.item_counts.double().numpy() for part in (real, fake)]
    rows.append(
        Quantity(
            "concentration on items (Gini)",
            "",
            gini(items[0]),
            gini(items[1]),
            jensen_shannon(*items),
            "Jensen-Shannon, bits",
        )
    )
    topics = [part.topic_counts.double().numpy() for part in (real, fake)]
    rows.append(
        Quantity(
            "share of the largest topic",
            "",
            float(topics[0].max() / topics[0].sum()),
            float(topics[1].max() / topics[1].sum()),
            jensen_shannon(*topics),
            "Jensen-Shannon, bits",
        )
    )
    return rows


def _click_rate(log: InteractionLog) -> float | None:
    if log.impressions is None:
        return None
    return float(log.impressions.behaviours["click"].double().mean())


def _rate(name: str, real: float | None, simulated: Simulated) -> Quantity:
    fake = float(simulated.impressions.behaviours["click"].double().mean())
    gap = None if real is None else abs(real - fake)
    return Quantity(name, "", real, fake, gap, "difference")


def _random_policy(log: InteractionLog, config: PopulationConfig, even: Simulated) -> RandomPolicy:
    per_session = even.first_probability.double().mean(1)
    return RandomPolicy(
        promised=random_click_rate(config, log),
        measured=mean_estimate(per_session.numpy()),
        log_estimate=_even_rate(log),
        liked_density=float(log.liked.sum()) / (log.num_users * log.num_items),
        liked_share=float(log.liked.double().mean()),
    )


def _even_rate(log: InteractionLog) -> float | None:
    """Return the first position's click rate under even choice, if the log tells."""
    if log.impressions is None or not has_propensities(log.impressions):
        return None
    return even_click_rate(log.impressions)


def _suggest(
    log: InteractionLog, real: Consumption, fake: Consumption, tasks: list[TaskReport]
) -> dict[str, float]:
    found: dict[str, float] = {}
    rate = _even_rate(log)
    if rate is not None:
        found["population.random_click_rate"] = rate
    # Fitted beside taste and quality, so that better items at the top are not taken for attention.
    for task in tasks:
        if task.name == "shown":
            found["users.examination.decay"] = task.fitted.decay
    if 0 < real.rates["like"] < 1 and 0 < fake.rates.get("like", 0.0) < 1:
        # To first order: the offset shifts the logit of a like after a click.
        shift = math.log(fake.rates["like"] / (1 - fake.rates["like"]))
        shift -= math.log(real.rates["like"] / (1 - real.rates["like"]))
        found["users.behaviours.like_offset (added)"] = shift
    return found


def _debias(users: Users, weights: Tensor, topics: Tensor, num_topics: int, seed: int) -> Debiasing:
    """Learn from first requests only: there boredom, which differs from truth, has not begun."""
    logs = [
        simulate(
            users, weights, topics, num_topics, slate_size=_LOG_SLATE, max_requests=1, seed=seed + n
        )
        for n in range(_LOG_BATCHES)
    ]
    truth = torch.stack([log.first_probability.double().mean(0) for log in logs]).mean(0)
    shown = pooled([log.impressions for log in logs])
    top = min(_TOP, truth.numel())

    def picked(score: Tensor) -> Tensor:
        return torch.topk(score, top).indices

    naive = picked(item_clicks(shown, truth.numel()))
    weighted = picked(item_click_rates(shown, truth.numel()))
    most_shown = picked(torch.bincount(shown.item, minlength=truth.numel()))
    return Debiasing(
        popular_share=float(torch.isin(naive, most_shown).double().mean()),
        random=float(truth.mean()),
        by_clicks=float(truth[naive].mean()),
        by_weighted_rate=float(truth[weighted].mean()),
        best=float(truth[picked(truth)].mean()),
        naive_rate=float(position_curve(shown, weighted=False)[0]),
        weighted_rate=float(position_curve(shown, weighted=True)[0]),
    )


def _distributions(
    log: InteractionLog, real: Consumption, popular: Simulated, even: Simulated
) -> dict[str, dict[str, list[float]]]:
    fake = popular.consumption
    positions = {"simulated": position_curve(even.impressions, weighted=False).tolist()}
    if log.impressions is not None:
        known = has_propensities(log.impressions)
        positions["log"] = position_curve(log.impressions, weighted=known).tolist()

    def shares(counts: Tensor) -> list[float]:
        return [float(value) for value in (counts.double() / counts.sum().clamp_min(1)).tolist()]

    def sorted_shares(counts: Tensor) -> list[float]:
        return sorted(shares(counts), reverse=True)

    return {
        "session_lengths": {
            "log": [float(value) for value in real.session_lengths.tolist()],
            "simulated": [float(value) for value in fake.session_lengths.tolist()],
        },
        "positions": positions,
        "popularity": {
            "log": sorted_shares(real.item_counts),
            "simulated": sorted_shares(fake.item_counts),
        },
        "topics": {"log": shares(real.topic_counts), "simulated": shares(fake.topic_counts)},
    }
