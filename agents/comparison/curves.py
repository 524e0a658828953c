"""Learning curves of experiments, from what their runs logged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agents.comparison.grouping import Group
from agents.comparison.runs import Run
from marec_env.evaluation.statistics import FEWEST_TO_RESAMPLE, bootstrap_band
from marec_env.reporting.figures import Line

__all__ = ["CURVES", "learning_curve"]

CURVES = {
    "episode/clicks": "clicks a session",
    "episode/length": "session length in requests",
    "episode/satisfaction_per_request": "satisfaction a request",
    "episode/return": "F a session",
}
"""What is drawn, by its name in ``metrics.jsonl``."""


def learning_curve(group: Group, name: str) -> Line | None:
    """Return a metric over env steps, ``None`` where a run did not log it.

    The band is a bootstrap interval, and from the lowest to the highest of too few seeds for one.
    Seeds that logged at different steps are interpolated to those of the first, as far as all go.
    """
    series = [_series(run, name) for run in group.runs]
    if any(len(found) == 0 for found in series):
        return None
    end = min(found[-1, 0] for found in series)
    steps = series[0][series[0][:, 0] <= end, 0]
    if steps.size == 0:
        return None
    if len(series) == 1:
        return Line(steps, series[0][: steps.size, 1])
    seeds = np.stack([np.interp(steps, found[:, 0], found[:, 1]) for found in series])
    if len(seeds) < FEWEST_TO_RESAMPLE:
        return Line(steps, seeds.mean(axis=0), seeds.min(axis=0), seeds.max(axis=0), seeds)
    return Line(steps, *bootstrap_band(seeds), seeds)


def _series(run: Run, name: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    kept: Sequence[tuple[float | None, float | None]] = [
        (row.get("env_steps"), row.get(name)) for row in run.metrics
    ]
    found = [(steps, value) for steps, value in kept if steps is not None and value is not None]
    return np.array(found, dtype=np.float64).reshape(-1, 2)
