"""The click model of the simulator, judged on interactions that its factors did not see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from marec_env import random
from marec_env.catalog.population import Population
from marec_env.data.log import InteractionLog
from marec_env.data.population import PopulationConfig, build_population
from marec_env.errors import DataError

TRAIN, TUNE, TEST = 0, 1, 2
_TRAIN_SHARE, _TUNE_SHARE = 0.6, 0.2  # of each user's interactions in time, or of the time span
_STEPS = 100  # of L-BFGS; the likelihood is smooth in three or four parameters
_NEGATIVES = 4  # random items asked about for each liked one
_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # topic shares tried in the sweep
_RIDGE = 1e-6  # keeps the likelihood bounded where the cases are separable
_BINS = 10  # of equal numbers of cases, in the calibration curve
_CLIP = 1e-9  # probabilities are kept this far from 0 and 1 in the log loss

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Split(NamedTuple):
    """Which part each interaction, and each impression, belongs to."""

    interactions: Tensor
    """Int64 ``[R]``: ``TRAIN``, ``TUNE`` or ``TEST``."""
    impressions: Tensor | None
    """Int64 ``[M]``, or ``None`` if the log has none."""


class Cases(NamedTuple):
    """``M`` user-item pairs with what happened."""

    user: Tensor
    item: Tensor
    event: Tensor
    """Bool ``[M]``."""
    position: Tensor | None = None
    """Int64 ``[M]``, the place in the slate, if the examination is to be fitted."""


@dataclass(frozen=True, slots=True)
class Coefficients:
    """``P(event) = decay^position · σ(intercept + scale u·x + quality_weight q)``."""

    intercept: float
    scale: float
    quality_weight: float
    decay: float
    """1 where positions are unknown."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """How well probabilities foretold events."""

    cases: int
    events: int
    auc: float
    """Probability that an event scored above a non-event (Mann-Whitney)."""
    auc_error: float
    """Its standard error (Hanley and McNeil, Radiology 143(1), 1982)."""
    log_loss: float
    """Mean negative log likelihood, nats."""
    null_log_loss: float
    """The same for the constant forecast of the cases' own rate."""
    calibration_error: float
    """Expected calibration error: mean of |forecast - rate| over bins of equal numbers of cases."""
    curve: tuple[tuple[float, float, int], ...]
    """Mean forecast, observed rate and number of cases, a bin each."""


@dataclass(frozen=True, slots=True)
class TaskReport:
    """One question asked about held-out interactions."""

    name: str
    question: str
    fitted: Coefficients
    forecast: Forecast
    """Of the fitted model, on the last part of the log."""
    configured_auc: float
    """Of the simulator's own logit, with the configured scale and quality weight."""
    configured_slope: float
    """Factor on the simulator's own logit that fits best (1: as steep as the log; below 1: the
    simulated users are more decided than the log's)."""


def split(log: InteractionLog) -> Split:
    """Cut the log in time: factors are fitted on the first part, the click model's few coefficients
    on the second, and all is judged on the third.

    With impressions the cuts are the same moments for everybody, so that nothing of the future
    leaks through other users; without, they are shares of each user's interactions, because in logs
    like MovieLens most users stay for a single day; so it is, with impressions drawn at random,
    where times do not tell three parts apart.
    """
    shares = torch.tensor([_TRAIN_SHARE, _TRAIN_SHARE + _TUNE_SHARE], dtype=torch.float64)
    if log.impressions is not None:
        cuts = torch.quantile(log.impressions.time.to(torch.float64), shares).to(torch.int64)
        both = [
            torch.bucketize(time, cuts, right=True) for time in (log.time, log.impressions.time)
        ]
        if all(torch.bincount(part, minlength=TEST + 1).all() for part in both):
            return Split(*both)
    count = torch.bincount(log.user, minlength=log.num_users)
    place = torch.arange(log.num_interactions) - (torch.cumsum(count, 0) - count)[log.user]
    fraction = (place.to(torch.float64) + 0.5) / count[log.user]
    shown = None
    if log.impressions is not None:
        keys = random.session_keys(0, torch.arange(log.impressions.user.numel()))
        drawn = random.uniform(keys, 0, "calibration/split", 1).squeeze(1)
        shown = torch.bucketize(drawn.to(torch.float64), shares)
    return Split(torch.bucketize(fraction, shares), shown)


def cases_against_random(log: InteractionLog, part: Tensor, negatives: int, seed: int) -> Cases:
    """Ask which of some items is one that the user went on to like; the others are items drawn
    evenly among those that the user never met, ``negatives`` for each liked one.

    Raises:
        DataError: nothing was liked in ``part``, bool ``[R]``.
    """
    chosen = part & log.liked
    user, item = log.user[chosen], log.item[chosen]
    if user.numel() == 0:
        raise DataError(
            "calibration: no liked interaction in a held-out part; the log is too small or "
            f"data.like_threshold ({log.like_threshold}) too high"
        )
    keys = random.session_keys(seed, torch.arange(user.numel()))
    drawn = random.integers(keys, 0, "calibration/negative", negatives, log.num_items).flatten()
    of = user.repeat_interleave(negatives)
    met = torch.unique(log.user * log.num_items + log.item)
    unmet = ~torch.isin(of * log.num_items + drawn, met)
    event = torch.arange(user.numel() + int(unmet.sum())) < user.numel()
    return Cases(torch.cat([user, of[unmet]]), torch.cat([item, drawn[unmet]]), event)


def area_under_curve(score: Floats, event: Bools) -> float:
    """Return the area under the ROC curve, ties counting half; NaN if all or none happened."""
    positive = int(event.sum())
    negative = event.size - positive
    if positive == 0 or negative == 0:
        return float("nan")
    above = rankdata(score)[event].sum() - positive * (positive + 1) / 2
    return float(above / (positive * negative))


def evaluate_forecast(probability: Floats, event: Bools) -> Forecast:
    """Compare forecasts ``[M]`` with what happened, bool ``[M]`` (at least one of either kind)."""
    positive = int(event.sum())
    negative = event.size - positive
    auc = area_under_curve(probability, event)
    variance = auc * (1 - auc) + (positive - 1) * (auc / (2 - auc) - auc**2)
    variance += (negative - 1) * (2 * auc**2 / (1 + auc) - auc**2)
    clipped = np.clip(probability, _CLIP, 1 - _CLIP)
    rate = float(np.clip(event.mean(), _CLIP, 1 - _CLIP))
    order = np.argsort(probability, kind="stable")
    curve = tuple(
        (float(probability[part].mean()), float(event[part].mean()), int(part.size))
        for part in np.array_split(order, _BINS)
        if part.size
    )
    return Forecast(
        cases=event.size,
        events=positive,
        auc=auc,
        auc_error=float(np.sqrt(max(variance, 0.0) / (positive * negative))),
        log_loss=float(-np.where(event, np.log(clipped), np.log1p(-clipped)).mean()),
        null_log_loss=float(-(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))),
        calibration_error=sum(abs(mean - seen) * n for mean, seen, n in curve) / event.size,
        curve=curve,
    )


def _features(population: Population, cases: Cases) -> Tensor:
    """Return fit and quality, float64 ``[M, 2]``."""
    fit = (population.user_factors[cases.user] * population.item_factors[cases.item]).sum(-1)
    return torch.stack([fit, population.quality[cases.item]], 1).to(torch.float64)


def _chance(parameters: Tensor, features: Tensor, position: Tensor | None) -> Tensor:
    """Return chances ``[M]`` by intercept, weights, and logit of decay where places are known."""
    chance = torch.sigmoid(parameters[0] + features @ parameters[1 : 1 + features.shape[1]])
    return chance if position is None else chance * torch.sigmoid(parameters[-1]) ** position


def _maximise(features: Tensor, cases: Cases) -> Tensor:
    """Return the parameters of maximum likelihood."""
    extra = 1 if cases.position is None else 2
    parameters = torch.zeros(features.shape[1] + extra, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=_STEPS, line_search_fn="strong_wolfe")
    event = cases.event.to(torch.float64)

    def loss() -> Tensor:
        optimizer.zero_grad()
        chance = _chance(parameters, features, cases.position)
        value = torch.nn.functional.binary_cross_entropy(chance, event)
        value = value + _RIDGE * parameters.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return parameters.detach()


def _named(parameters: Tensor) -> Coefficients:
    intercept, scale, quality = parameters[:3].tolist()
    decay = 1.0 if parameters.numel() == 3 else float(torch.sigmoid(parameters[3]))
    return Coefficients(intercept, scale, quality, decay)


def fit_coefficients(population: Population, cases: Cases) -> Coefficients:
    """Fit the click model's coefficients on cases by maximum likelihood."""
    return _named(_maximise(_features(population, cases), cases))


def _judge(
    name: str, question: str, population: Population, tune: Cases, test: Cases
) -> TaskReport:
    fitted, features = _maximise(_features(population, tune), tune), _features(population, test)
    chance = _chance(fitted, features, test.position)
    own = population.scale * features[:, 0] + features[:, 1]
    event = test.event.numpy()
    return TaskReport(
        name=name,
        question=question,
        fitted=_named(fitted),
        forecast=evaluate_forecast(chance.numpy(), event),
        configured_auc=area_under_curve(own.numpy(), event),
        configured_slope=float(_maximise(own[:, None], test)[1]),
    )


def judge_click_model(
    log: InteractionLog, config: PopulationConfig, topics: Tensor, num_topics: int, seed: int = 0
) -> list[TaskReport]:
    """Fit population and click model on the earlier parts of a log and judge them on the last.

    Topics, int64 ``[N]``, are from text, hence not from held-out interactions; the intercept that
    ``config`` asks for plays no part here, and ``seed`` is of the random items asked about.

    Raises:
        DataError: a part has no liked interaction.
    """
    interactions, impressions = split(log)
    population = build_population(config, log.select(interactions == TRAIN), topics, num_topics)
    parts = [interactions == TUNE, interactions == TEST]
    reports = []
    if all(0 < int(log.liked[part].sum()) < int(part.sum()) for part in parts):
        rated = [Cases(log.user[part], log.item[part], log.liked[part]) for part in parts]
        reports.append(_judge("rated", "liked, of consumed", population, *rated))
    against = [
        cases_against_random(log, part, _NEGATIVES, seed + offset)
        for offset, part in enumerate(parts)
    ]
    reports.append(_judge("random", "liked, of random", population, *against))
    if impressions is not None and (of := log.impressions) is not None:
        clicked = of.behaviours["click"] > 0
        shown = [
            Cases(of.user[part], of.item[part], clicked[part], of.position[part])
            for part in (impressions == TUNE, impressions == TEST)
        ]
        reports.append(_judge("shown", "clicked, of shown", population, *shown))
    return reports


def topic_share_sweep(
    log: InteractionLog, config: PopulationConfig, topics: Tensor, num_topics: int, seed: int = 0
) -> list[tuple[float, float]]:
    """Return held-out AUC against random items by the share of topic identity in true tastes."""
    parts = split(log).interactions
    train = log.select(parts == TRAIN)
    test = cases_against_random(log, parts == TEST, _NEGATIVES, seed + 1)
    rows = []
    for share in _SHARES:
        changed = config.model_copy(update={"topic_share": share})
        fit = _features(build_population(changed, train, topics, num_topics), test)[:, 0]
        rows.append((share, area_under_curve(fit.numpy(), test.event.numpy())))
    return rows
