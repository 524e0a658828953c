"""Intervals of what is computed from several means (ratios, maxima, equilibria)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from agents.studies.equilibrium.normal_form import Floats
from marec_env.evaluation.statistics import DEFAULT_CONFIDENCE, Estimate

__all__ = ["bootstrap"]

RESAMPLES = 1000


def bootstrap(
    samples: Mapping[str, ArrayLike],
    statistics: Callable[[Mapping[str, Floats]], Mapping[str, float]],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Return percentile intervals of statistics of means over sessions.

    Payoffs estimated under common random numbers move together, so sessions are resampled whole
    (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13).

    Args:
        samples: arrays ``[S, ...]`` over the same sessions in the same order.
        statistics: from the means ``[...]`` of those arrays to named numbers; a statistic that is
            NaN in a resample is left out of its quantiles there.
        resamples: how many times sessions are redrawn.
        seed: of the redrawing.

    Raises:
        ValueError: the arrays are over different numbers of sessions.
    """
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in samples.items()}
    sizes = {len(values) for values in arrays.values()}
    if len(sizes) != 1:
        raise ValueError(f"samples are over different numbers of sessions: {sorted(sizes)}")
    sessions = sizes.pop()
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(sessions, np.full(sessions, 1.0 / sessions), size=resamples)
    weights = counts / sessions
    point = statistics({name: values.mean(axis=0) for name, values in arrays.items()})
    redrawn = {name: np.tensordot(weights, values, axes=(1, 0)) for name, values in arrays.items()}
    draws = [statistics({key: v[row] for key, v in redrawn.items()}) for row in range(resamples)]
    tail = (1.0 - DEFAULT_CONFIDENCE) / 2.0
    found = {}
    for name, value in point.items():
        drawn = np.array([draw[name] for draw in draws])
        drawn = drawn[~np.isnan(drawn)]
        low, high = np.quantile(drawn, [tail, 1.0 - tail]) if drawn.size else (float("nan"),) * 2
        error = drawn.std(ddof=1) if drawn.size > 1 else float("nan")
        found[name] = Estimate(float(value), float(low), float(high), float(error), sessions)
    return found
