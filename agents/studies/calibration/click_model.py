"""The click model of the simulator, judged on interactions that its factors did not see."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from agents.studies.calibration import holdout
from agents.studies.calibration.holdout import Cases
from agents.studies.calibration.metrics import Forecast, area_under_curve, evaluate_forecast
from marec_env.catalog.population import Population
from marec_env.data.log import InteractionLog
from marec_env.data.population import PopulationConfig, build_population

__all__ = [
    "Coefficients",
    "TaskReport",
    "fit_coefficients",
    "judge_click_model",
    "topic_share_sweep",
]

_STEPS = 100  # of L-BFGS; the likelihood is smooth in three or four parameters
_NEGATIVES = 4  # random items asked about for each liked one
_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # topic shares tried in the sweep
_RIDGE = 1e-6  # keeps the likelihood bounded where the cases are separable


@dataclass(frozen=True, slots=True)
class Coefficients:
    """``P(event) = decay^position · σ(intercept + scale u·x + quality_weight q)``."""

    intercept: float
    scale: float
    quality_weight: float
    decay: float
    """1 where positions are unknown."""


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

    def as_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return asdict(self)


def _features(population: Population, cases: Cases) -> tuple[Tensor, Tensor]:
    users, items = population.user_factors[cases.user], population.item_factors[cases.item]
    return (users * items).sum(-1).to(torch.float64), population.quality[cases.item].to(
        torch.float64
    )


def _probability(parameters: Tensor, features: Tensor, position: Tensor | None) -> Tensor:
    """Return event probabilities; ``parameters``: intercept, a weight a feature, logit of decay."""
    weights = parameters[1 : 1 + features.shape[1]]
    chance = torch.sigmoid(parameters[0] + features @ weights)
    if position is None:
        return chance
    return chance * torch.sigmoid(parameters[-1]) ** position


def _maximise(features: Tensor, cases: Cases) -> Tensor:
    """Return the maximum-likelihood parameters."""
    extra = 1 if cases.position is None else 2
    parameters = torch.zeros(features.shape[1] + extra, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=_STEPS, line_search_fn="strong_wolfe")
    event = cases.event.to(torch.float64)
    position = None if cases.position is None else cases.position.to(torch.float64)

    def loss() -> Tensor:
        optimizer.zero_grad()
        chance = _probability(parameters, features, position)
        value = torch.nn.functional.binary_cross_entropy(chance, event)
        value = value + _RIDGE * parameters.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return parameters.detach()


def fit_coefficients(population: Population, cases: Cases) -> Coefficients:
    """Fit the click model's coefficients on cases by maximum likelihood."""
    parameters = _maximise(torch.stack(_features(population, cases), 1), cases)
    decay = 1.0 if cases.position is None else float(torch.sigmoid(parameters[3]))
    return Coefficients(float(parameters[0]), float(parameters[1]), float(parameters[2]), decay)


def _predict(coefficients: Coefficients, population: Population, cases: Cases) -> Tensor:
    fit, quality = _features(population, cases)
    logit = (
        coefficients.intercept + coefficients.scale * fit + coefficients.quality_weight * quality
    )
    chance = torch.sigmoid(logit)
    return chance if cases.position is None else chance * coefficients.decay**cases.position


def _judge(
    name: str, question: str, population: Population, tune: Cases, test: Cases
) -> TaskReport:
    fitted = fit_coefficients(population, tune)
    fit, quality = _features(population, test)
    own = population.scale * fit + quality
    event = test.event.numpy()
    return TaskReport(
        name=name,
        question=question,
        fitted=fitted,
        forecast=evaluate_forecast(_predict(fitted, population, test).numpy(), event),
        configured_auc=area_under_curve(own.numpy(), event),
        configured_slope=float(_maximise(own[:, None], test)[1]),
    )


def judge_click_model(
    log: InteractionLog, config: PopulationConfig, topics: Tensor, num_topics: int, seed: int = 0
) -> list[TaskReport]:
    """Fit population and click model on the earlier parts of a log and judge them on the last.

    Args:
        log: the whole log.
        config: of the population; its intercept plays no part here.
        topics: int64 ``[N]``, from text, hence not from held-out interactions.
        num_topics: T.
        seed: of the random items asked about.

    Returns:
        ``rated`` and ``random``, and ``shown`` if the log has impressions.

    Raises:
        DataError: a part has no liked interaction.
    """
    parts = holdout.split(log)
    train = log.select(parts.interactions == holdout.TRAIN)
    population = build_population(config, train, topics, num_topics)
    tune, test = (parts.interactions == part for part in (holdout.TUNE, holdout.TEST))
    reports = []
    if _both_kinds(log.liked[tune]) and _both_kinds(log.liked[test]):
        among = [holdout.cases_among_rated(log, part) for part in (tune, test)]
        reports.append(_judge("rated", "liked, of consumed", population, *among))
    against = [
        holdout.cases_against_random(log, part, _NEGATIVES, seed + offset)
        for offset, part in enumerate((tune, test))
    ]
    reports.append(_judge("random", "liked, of random", population, *against))
    if parts.impressions is not None:
        shown = [
            holdout.cases_shown(log, parts.impressions == part)
            for part in (holdout.TUNE, holdout.TEST)
        ]
        reports.append(_judge("shown", "clicked, of shown", population, *shown))
    return reports


def _both_kinds(event: Tensor) -> bool:
    return bool(event.any()) and not bool(event.all())


def topic_share_sweep(
    log: InteractionLog, config: PopulationConfig, topics: Tensor, num_topics: int, seed: int = 0
) -> list[tuple[float, float]]:
    """Return held-out AUC against random items by the share of topic identity in true tastes."""
    parts = holdout.split(log)
    train = log.select(parts.interactions == holdout.TRAIN)
    test = holdout.cases_against_random(
        log, parts.interactions == holdout.TEST, _NEGATIVES, seed + 1
    )
    rows = []
    for share in _SHARES:
        changed = config.model_copy(update={"topic_share": share})
        fit, _ = _features(build_population(changed, train, topics, num_topics), test)
        rows.append((share, area_under_curve(fit.numpy().astype(np.float64), test.event.numpy())))
    return rows
