"""Intervals over sessions, all profiles of a game on the same sessions.

A mean has Student's interval. What is computed from several means (ratios, maxima, equilibria) has
a bootstrap interval: payoffs estimated under common random numbers move together, so sessions are
resampled whole (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13,
percentile intervals).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from agents.studies.equilibrium.normal_form import Floats
from marec_env.evaluation.statistics import DEFAULT_CONFIDENCE, mean_estimate

__all__ = ["Interval", "bootstrap", "mean_interval", "resample_weights"]

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence limits."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def as_json(self) -> dict[str, float]:
        """Return the three numbers by name."""
        return {"value": self.value, "low": self.low, "high": self.high}


def resample_weights(sessions: int, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """Return ``[resamples, sessions]``: the share of each session in each resample."""
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(sessions, np.full(sessions, 1.0 / sessions), size=resamples)
    return counts / sessions


def bootstrap(
    samples: Mapping[str, ArrayLike],
    statistics: Callable[[Mapping[str, Floats]], Mapping[str, float]],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return intervals of statistics of means over sessions.

    Args:
        samples: arrays ``[S, ...]`` over the same sessions in the same order.
        statistics: from the means ``[...]`` of those arrays to named numbers; a statistic that is
            NaN in a resample is left out of its quantiles there.
        resamples: how many times sessions are redrawn.
        seed: of the redrawing.
    """
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in samples.items()}
    sessions = {len(values) for values in arrays.values()}
    if len(sessions) != 1:
        raise ValueError(f"samples are over different numbers of sessions: {sorted(sessions)}")
    weights = resample_weights(sessions.pop(), resamples, seed)
    point = statistics({name: values.mean(axis=0) for name, values in arrays.items()})
    redrawn = {name: np.tensordot(weights, values, axes=(1, 0)) for name, values in arrays.items()}
    draws: dict[str, list[float]] = {name: [] for name in point}
    for row in range(resamples):
        for name, value in statistics({key: v[row] for key, v in redrawn.items()}).items():
            draws[name].append(value)
    tail = (1.0 - DEFAULT_CONFIDENCE) / 2.0
    intervals = {}
    for name, value in point.items():
        drawn = np.array(draws[name])
        drawn = drawn[~np.isnan(drawn)]
        low, high = np.quantile(drawn, [tail, 1.0 - tail]) if drawn.size else (float("nan"),) * 2
        intervals[name] = Interval(float(value), float(low), float(high))
    return intervals


def mean_interval(values: ArrayLike) -> Interval:
    """Return the mean of ``[S]`` session values with Student's interval."""
    found = mean_estimate(values)
    return Interval(found.value, found.low, found.high)
