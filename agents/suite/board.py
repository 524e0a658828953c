"""The leaderboard: scores of all tasks put on one scale, ranks, probabilities of improvement.

A score is how far a run got from random play (0) to the oracle (1) of its task, in clicks a
session. Aggregates follow Agarwal et al., "Deep Reinforcement Learning at the Edge of the
Statistical Precipice" (NeurIPS 2021): the seeds of each task are redrawn apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from agents.comparison.rows import Row
from agents.comparison.summary import THRESHOLDS, PerformanceProfile, Summary
from agents.suite.tasks import Task
from marec_env.evaluation.statistics import (
    Estimate,
    bootstrap_band,
    bootstrap_seeds,
    interquartile_mean,
    paired_difference,
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Standing:
    """An algorithm over all tasks that have all the algorithms."""

    algorithm: str
    score: Estimate
    """Interquartile mean over tasks and seeds."""
    rank: Estimate
    """Mean over tasks of the rank by interquartile mean; 1 is best."""
    over: Mapping[str, Estimate]
    """By other algorithm: the probability that a run of this one is better, mean over tasks."""


@dataclass(frozen=True)
class Claim:
    """What was measured of a task's claim."""

    difference: Estimate
    """Clicks of the better algorithm less those of the worse, seed by seed."""
    share: Estimate
    """The same as a share of the worse one's mean."""
    better: Floats
    """Clicks by seed, as are the others ``[R]``."""
    worse: Floats
    shuffled: Floats | None
    """Of the better one under the control."""

    @property
    def errors(self) -> float:
        """The difference in its standard errors."""
        error = self.difference.standard_error
        return self.difference.value / error if error > 0 else float("inf")

    def holds(self, task: Task) -> bool:
        """Whether the ability adds what is claimed, by five standard errors, and the control takes
        it away: under it the gain is no longer told from zero, or less than a quarter is left.
        """
        found = self.share.value >= task.least and self.errors >= _ERRORS
        if self.shuffled is None:
            return found
        left = paired_difference(self.shuffled, self.worse)
        return found and (left.low <= 0 or left.value <= _LEFT * self.difference.value)


_ERRORS = 5.0
_LEFT = 0.25


def _clicks(row: Row) -> dict[int, float]:
    return dict(zip(row.seeds, row.by_seed["clicks"], strict=True))


def _rows(summary: Summary) -> dict[str, Row]:
    return {row.label: row for row in summary.experiments}


def claim_of(
    task: Task, summary: Summary, shuffled: Mapping[int, float] | None = None
) -> Claim | None:
    """Return what came of a claim; ``None`` with fewer than two seeds of both its algorithms.

    Args:
        task: whose claim.
        summary: of its runs.
        shuffled: clicks by seed under the control.
    """
    rows = _rows(summary)
    if task.better not in rows or task.worse not in rows:
        return None
    better, worse = _clicks(rows[task.better]), _clicks(rows[task.worse])
    seeds = sorted(better.keys() & worse.keys())
    if shuffled is not None:
        seeds = [seed for seed in seeds if seed in shuffled]
    if len(seeds) < 2:
        return None
    ours, theirs = (np.array([clicks[seed] for seed in seeds]) for clicks in (better, worse))
    gap, base = paired_difference(ours, theirs), float(theirs.mean())
    share = Estimate(gap.value / base, gap.low / base, gap.high / base, count=gap.count)
    control = None if shuffled is None else np.array([shuffled[seed] for seed in seeds])
    return Claim(gap, share, ours, theirs, control)


def _scores(summaries: Mapping[str, Summary]) -> tuple[list[str], Floats]:
    """Return the algorithms that all tasks have, and their scores ``[T, R, A]`` on the seeds that
    all have.
    """
    tables: list[dict[str, dict[int, float]]] = []
    for summary in summaries.values():
        others = {row.label: row.values["clicks"].value for row in summary.others}
        roof = max((others[row.label] for row in summary.others if row.kind == "oracle"), default=0)
        floor = others.get("random", 0.0)
        span = roof - floor if roof > floor else 1.0
        tables.append(
            {
                name: {seed: (found - floor) / span for seed, found in _clicks(row).items()}
                for name, row in _rows(summary).items()
            }
        )
    names = [name for name in tables[0] if all(name in table for table in tables)] if tables else []
    seeds = set.intersection(*(set(t[n]) for t in tables for n in names)) if names else set()
    if not seeds:
        return [], np.empty((0, 0, 0))
    found = [[[table[name][seed] for name in names] for seed in sorted(seeds)] for table in tables]
    return names, np.array(found)


def _aggregates(scores: Floats) -> Floats:
    """Return, of scores ``[T, R, A]``, score and rank ``[A]`` and wins ``[A, A]``, flat."""
    tasks, seeds, count = scores.shape
    score = interquartile_mean(scores.reshape(tasks * seeds, count).T)
    rank = rankdata(-interquartile_mean(scores.swapaxes(1, 2)), axis=1).mean(axis=0)
    first, second = scores[:, :, None, :, None], scores[:, None, :, None, :]
    wins = ((first > second) + 0.5 * (first == second)).mean(axis=(0, 1, 2))
    return np.concatenate([score, rank, wins.ravel()])


def standings(summaries: Mapping[str, Summary]) -> list[Standing]:
    """Return the algorithms that all tasks have, best score first; none without a common seed."""
    names, scores = _scores(summaries)
    count = len(names)
    if not count:
        return []
    found = bootstrap_seeds(scores, _aggregates)
    table = []
    for place, name in enumerate(names):
        wins = found[2 * count + place * count :][:count]
        over = {other: wins[k] for k, other in enumerate(names) if k != place}
        table.append(Standing(name, found[place], found[count + place], over))
    return sorted(table, key=lambda standing: -standing.score.value)


def profile_of(summaries: Mapping[str, Summary]) -> PerformanceProfile | None:
    """Return the performance profile over tasks and seeds; ``None`` without a common seed."""
    names, scores = _scores(summaries)
    if not names:
        return None
    margin = 0.1 * (float(np.ptp(scores)) or 1.0)
    thresholds = np.linspace(scores.min() - margin, scores.max() + margin, THRESHOLDS)
    reached = (scores[..., None] > thresholds).mean(axis=0)  # [R, A, M]
    bands = {
        name: bootstrap_band(reached[:, place], lambda drawn: drawn.mean(axis=-1))
        for place, name in enumerate(names)
    }
    return PerformanceProfile("score", thresholds, True, bands)


def missing(names: Sequence[str], summary: Summary) -> list[str]:
    """Return which algorithms a task lacks."""
    return [name for name in names if name not in _rows(summary)]
