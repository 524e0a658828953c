"""Off-policy evaluation of teams: what another team would earn, beside the simulator's truth.

Estimates from a log of :mod:`agents.studies.off_policy_logs`, by the estimators of
:mod:`marec_env.evaluation.off_policy`, and how their error falls with the log's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.studies.off_policy_logs import Floats, RequestLog
from agents.studies.records import plain, spread
from marec_env.evaluation.off_policy import (
    cross_fit_folds,
    doubly_robust,
    effective_sample_size,
    importance_sampling,
    self_normalised,
)
from marec_env.evaluation.statistics import Estimate, mean_estimate
from marec_env.reporting.table import TextTable

__all__ = ["errors_by_size", "estimates", "fitted", "judge"]

ESTIMATORS = ("IPS", "SNIPS", "cascade IPS", "DM", "DR", "cascade DR")
"""Of a component's log the cascade's estimators are the plain ones, and left out."""
_RIDGE = 100.0  # requests' worth of prior towards the mean reward, in units of spread
_FOLDS = 5
_SMALL = 1e-9
_REPETITIONS = 50  # logs of each size
_SMALLEST_SHARE = 64  # the sizes are this fraction of the log, a fourth of it, and so on up

Model = tuple[Floats, Floats]
"""Predicted rewards of what was done, ``[n, P]``, and their expectation under the target."""


def fitted(log: RequestLog, seed: int = 0) -> Model:
    """Return a ridge regression's predictions of each fold's rewards from the other folds.

    Rows of one session are always in one fold.
    """
    features, positions = log.features.shape[2], log.reward.shape[1]
    predicted = np.empty(log.reward.shape)
    value = np.empty(log.reward.shape)
    sessions, place = np.unique(log.session, return_inverse=True)
    fold = cross_fit_folds(sessions.size, min(_FOLDS, sessions.size), seed)[place]
    for number in range(int(fold.max()) + 1):
        held, kept = fold == number, fold != number
        known = log.features[kept].reshape(-1, features)
        reward = log.reward[kept].reshape(-1)
        centre, spread = known.mean(axis=0), known.std(axis=0) + _SMALL
        table = (known - centre) / spread
        gram = table.T @ table + _RIDGE * positions * np.eye(features)
        weights = np.linalg.solve(gram, table.T @ (reward - reward.mean())) / spread
        constant = reward.mean() - centre @ weights
        predicted[held] = log.features[held] @ weights + constant
        value[held] = (log.target_features[held] @ weights).mean(axis=1) + constant
    return predicted, value


def ignorant(log: RequestLog, factor: float = 0.5) -> Model:
    """Return a poor model: ``factor`` times the mean reward at each place, whatever was done."""
    same = np.broadcast_to(factor * log.reward.mean(axis=0), log.reward.shape)
    return same, same


def estimates(log: RequestLog, model: Model) -> dict[str, Estimate]:
    """Return what each estimator says of the target's clicks a request.

    Intervals take sessions, not their requests, for independent; the direct method, whose error is
    its model's, has none.
    """
    predicted, value = model
    unit = log.session
    whole = np.broadcast_to(log.ratio, log.reward.shape)
    found = {
        "IPS": importance_sampling(log.reward, whole, unit),
        "SNIPS": self_normalised(log.reward, whole, unit),
        # Of a biased model an interval over sessions covers the truth in .32 to .83 of cases.
        "DM": Estimate(float(np.mean(value.sum(axis=1)))),
        "DR": doubly_robust(log.reward, whole, predicted, value, unit),
    }
    if log.reward.shape[1] > 1:
        found["cascade IPS"] = importance_sampling(log.reward, log.cascade, unit)
        found["cascade DR"] = doubly_robust(log.reward, log.cascade, predicted, value, unit)
    return {name: found[name] for name in ESTIMATORS if name in found}


@dataclass(frozen=True, slots=True)
class ErrorAtSize:
    """Root mean square errors over logs of one size, in clicks a request."""

    sessions: int
    requests: float
    """Mean over the logs."""
    good: dict[str, float]
    """By estimator, with the fitted model."""
    poor: dict[str, float]
    """By estimator, with the ignorant model."""


def errors_by_size(
    log: RequestLog, sizes: Sequence[int], repetitions: int, seed: int = 0
) -> list[ErrorAtSize]:
    """Draw logs of so many sessions from a large one and compare estimates with its truth.

    The truth is the mean over the whole log, so sizes (in sessions) should be small beside it;
    there are ``repetitions`` logs of each.
    """
    truth = float(log.truth.mean())
    sessions = np.unique(log.session)
    generator = np.random.default_rng(seed)
    found = []
    for size in sizes:
        squares: dict[str, list[dict[str, float]]] = {"good": [], "poor": []}
        requests = 0
        for repetition in range(repetitions):
            chosen = generator.choice(sessions, size, replace=False)
            part = log.select(np.isin(log.session, chosen))
            requests += part.session.size
            for kind, model in (("good", fitted(part, repetition)), ("poor", ignorant(part))):
                told = estimates(part, model)
                squares[kind].append({n: (e.value - truth) ** 2 for n, e in told.items()})
        errors = {
            kind: {name: float(np.sqrt(np.mean([one[name] for one in rows]))) for name in rows[0]}
            for kind, rows in squares.items()
        }
        found.append(ErrorAtSize(size, requests / repetitions, **errors))
    return found


def judge(name: str, log: RequestLog) -> tuple[dict[str, Any], TextTable]:
    """Return the estimates of one log beside the truth and their errors by size, and a table."""
    count = np.unique(log.session).size
    sizes = [max(4, count // (_SMALLEST_SHARE >> (2 * k))) for k in range(3)]
    found = estimates(log, fitted(log))
    errors = errors_by_size(log, sizes, _REPETITIONS)
    truth = mean_estimate(log.truth, log.session)
    worth = effective_sample_size(log.ratio)
    logged = float(log.reward.sum(axis=1).mean())
    table = TextTable(
        f"{name}: the target gets {spread(truth)} "
        f"clicks a request, the log {logged:.3f}; {log.session.size:,} requests, worth "
        f"{worth:,.0f} of the target's own",
        (
            "estimator",
            "from the whole log",
            *(f"error at {entry.sessions}" for entry in errors),
            f"poor, at {errors[-1].sessions}",
        ),
        [
            (
                estimator,
                spread(estimate),
                *(f"{entry.good[estimator]:.3f}" for entry in errors),
                f"{errors[-1].poor[estimator]:.3f}",
            )
            for estimator, estimate in found.items()
        ],
        (
            "error: root mean square over logs of so many sessions; poor: with a model that says "
            "half the mean click rate of everything. DM has no interval: it errs as its model does",
        ),
    )
    record = {
        "truth": truth.value,
        "logged": logged,
        "requests": int(log.session.size),
        "effective_requests": worth,
        "mean_ratio": float(log.ratio.mean()),
        "estimates": found,
        "errors": errors,
    }
    return plain(record), table
