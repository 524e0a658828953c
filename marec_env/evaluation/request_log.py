"""A log of requests as off-policy estimators take it, a model of its rewards, and what all say."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marec_env.evaluation.off_policy import (
    cross_fit_folds,
    doubly_robust,
    importance_sampling,
    self_normalised,
)
from marec_env.evaluation.statistics import Estimate

TARGET_DRAWS = 4
"""Draws of the target for each request, over which a model's value is a mean."""
ESTIMATORS = ("IPS", "SNIPS", "cascade IPS", "DM", "DR", "cascade DR")
"""Of a component's log the cascade's estimators are the plain ones, and left out."""
_RIDGE = 100.0  # requests' worth of prior towards the mean reward, in units of spread
_FOLDS = 5
_SMALL = 1e-9

Floats = NDArray[np.float64]

Model = tuple[Floats, Floats]
"""Predicted rewards of what was done, ``[n, P]``, and their expectation under the target."""


@dataclass(frozen=True, slots=True)
class RequestLog:
    """``n`` requests with ``P`` rewards each: clicks by position (P = K), or in all (P = 1)."""

    session: NDArray[np.int64]
    """``[n]``."""
    reward: Floats
    """``[n, P]``."""
    cascade: Floats
    """``[n, P]``: target over logging probability of the action, or of a slate's places down to
    each."""
    features: Floats
    """``[n, P, f]``: what a reward model reads of what was done."""
    target_features: Floats
    """``[n, TARGET_DRAWS, P, f]``: the same of what the target would do."""
    truth: Floats
    """``[n]``: clicks that the target got in the same state."""

    @property
    def ratio(self) -> Floats:
        """Target over logging probability of the action, or of the whole slate, ``[n, 1]``."""
        return self.cascade[:, -1:]

    def select(self, rows: NDArray[Any]) -> RequestLog:
        """Return the requests of a bool mask or of int rows."""
        return RequestLog(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def fitted(log: RequestLog, seed: int = 0) -> Model:
    """Return a ridge regression's predictions of each fold's rewards from the other folds.

    Rows of one session are always in one fold.
    """
    predicted = np.empty(log.reward.shape)
    value = np.empty(log.reward.shape)
    sessions, place = np.unique(log.session, return_inverse=True)
    fold = cross_fit_folds(sessions.size, min(_FOLDS, sessions.size), seed)[place]
    for number in range(int(fold.max()) + 1):
        held, kept = fold == number, fold != number
        weights, constant = ridge(log.features[kept], log.reward[kept])
        predicted[held] = log.features[held] @ weights + constant
        value[held] = (log.target_features[held] @ weights).mean(axis=1) + constant
    return predicted, value


def ridge(features: Floats, reward: Floats) -> tuple[Floats, float]:
    """Return weights ``[f]`` and constant of a ridge regression of rewards ``[n, P]`` on features
    ``[n, P, f]``.
    """
    positions, size = features.shape[1:]
    known, reward = features.reshape(-1, size), reward.ravel()
    centre, spread = known.mean(axis=0), known.std(axis=0) + _SMALL
    table = (known - centre) / spread
    gram = table.T @ table + _RIDGE * positions * np.eye(size)
    weights = np.linalg.solve(gram, table.T @ (reward - reward.mean())) / spread
    return weights, float(reward.mean() - centre @ weights)


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
