"""Statistics for comparing algorithms: paired differences, robust means, bootstrap intervals.

The measures follow Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical
Precipice" (NeurIPS 2021). ``R`` runs (seeds) of ``T`` tasks are one array ``[R, T]``; outcomes of
``n`` sessions are ``[n]``. Two policies evaluated on the same sessions under common random numbers
are compared by their differences session by session.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

__all__ = [
    "DEFAULT_CONFIDENCE",
    "FEWEST_TO_RESAMPLE",
    "MINIMUM_SEEDS",
    "Estimate",
    "PairedDifference",
    "bootstrap_band",
    "bootstrap_interval",
    "clustered_mean",
    "finite_or_none",
    "improvement_interval",
    "interquartile_mean",
    "mean_difference",
    "mean_estimate",
    "paired_difference",
    "performance_profile",
    "probability_of_improvement",
    "seeds_interval",
    "seeds_warning",
    "stratified_bootstrap",
]

Floats = NDArray[np.float64]

DEFAULT_CONFIDENCE = 0.95
DEFAULT_REPETITIONS = 2000  # of a bootstrap; the quantiles of rliable use as many
FEWEST_TO_RESAMPLE = 5
"""Below, resamples know too little of the runs' spread: at four, intervals cover 87 % (normal)."""
MINIMUM_SEEDS = 10  # below, a two-sided sign test cannot fall under 2^-9 = 0.002


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its confidence interval."""

    value: float
    low: float
    high: float
    standard_error: float
    count: int
    """Independent units behind the value: sessions, or seeds."""

    def as_json(self, name: str = "value") -> dict[str, float | None]:
        """Return the value, under ``name``, and its interval; ``None`` for what is undefined."""
        return {
            name: finite_or_none(self.value),
            "low": finite_or_none(self.low),
            "high": finite_or_none(self.high),
        }


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """The mean difference of two policies on the same sessions."""

    difference: Estimate
    pairing_factor: float
    """How many times wider the interval would be had the sessions been independent draws."""

    @property
    def significant(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.difference.low > 0 or self.difference.high < 0


def finite_or_none(value: float) -> float | None:
    """Return a number as JSON takes it: NaN and infinities, which it lacks, are ``None``."""
    return float(value) if math.isfinite(value) else None


def mean_estimate(values: ArrayLike, confidence: float = DEFAULT_CONFIDENCE) -> Estimate:
    """Return the mean of ``[n]`` independent values with Student's interval.

    NaN marks an undefined value (a user with nothing relevant, say) and is left out. One value has
    no interval: its ends are NaN.
    """
    finite = _finite(values)
    count = finite.size
    if count == 0:
        return Estimate(np.nan, np.nan, np.nan, np.nan, 0)
    mean = float(finite.mean())
    if count == 1:
        return Estimate(mean, np.nan, np.nan, np.nan, 1)
    error = float(finite.std(ddof=1) / np.sqrt(count))
    half = float(stats.t.ppf(0.5 + confidence / 2, count - 1)) * error
    return Estimate(mean, mean - half, mean + half, error, count)


def clustered_mean(
    values: ArrayLike, cluster: ArrayLike, confidence: float = DEFAULT_CONFIDENCE
) -> Estimate:
    """Return the mean of values of which only those of different clusters are independent.

    Deviations are added up within clusters before they are squared (Cameron and Miller, "A
    practitioner's guide to cluster-robust inference", Journal of Human Resources, 2015), and
    Student's distribution has a degree of freedom less than there are clusters. Where each value is
    a cluster of its own this is :func:`mean_estimate`.

    Args:
        values: ``[n]``, finite.
        cluster: int ``[n]``, for instance the session of each request.
        confidence: of the interval, whose ends are NaN where there are fewer than two clusters.
    """
    found = np.asarray(values, dtype=np.float64)
    names, place = np.unique(np.asarray(cluster), return_inverse=True)
    mean = float(found.mean())
    if names.size < 2:
        return Estimate(mean, np.nan, np.nan, np.nan, names.size)
    sums = np.bincount(place, weights=found - mean)
    error = float(np.sqrt((sums**2).sum() * names.size / (names.size - 1)) / found.size)
    half = float(stats.t.ppf(0.5 + confidence / 2, names.size - 1)) * error
    return Estimate(mean, mean - half, mean + half, error, names.size)


def paired_difference(
    values: ArrayLike, reference: ArrayLike, confidence: float = DEFAULT_CONFIDENCE
) -> PairedDifference:
    """Compare two policies' outcomes of the same sessions.

    Args:
        values: ``[n]``, one outcome a session.
        reference: ``[n]``, the other policy's outcomes of the same sessions in the same order.
        confidence: of the interval.

    Raises:
        ValueError: the shapes differ.
    """
    first, second = np.asarray(values, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(
            f"paired outcomes are [n] each, of the same sessions; got {first.shape}, {second.shape}"
        )
    both = np.isfinite(first) & np.isfinite(second)
    difference = mean_estimate(first[both] - second[both], confidence)
    if difference.count < 2:
        return PairedDifference(difference, np.nan)
    unpaired = np.sqrt((first[both].var(ddof=1) + second[both].var(ddof=1)) / difference.count)
    factor = unpaired / difference.standard_error if difference.standard_error > 0 else np.inf
    return PairedDifference(difference, float(factor))


def mean_difference(
    values: ArrayLike, reference: ArrayLike, confidence: float = DEFAULT_CONFIDENCE
) -> Estimate:
    """Return the difference of the means of two independent samples, with Welch's interval.

    Args:
        values: ``[n]``; NaN is left out.
        reference: ``[m]``, of other units than ``values``.
        confidence: of the interval, whose ends are NaN where either sample has fewer than two.
    """
    first, second = mean_estimate(values), mean_estimate(reference)
    gap, count = first.value - second.value, first.count + second.count
    errors = first.standard_error**2, second.standard_error**2
    spread = sum(errors)
    if not spread > 0:
        return Estimate(gap, np.nan, np.nan, np.nan, count)
    freedom = spread**2 / (errors[0] ** 2 / (first.count - 1) + errors[1] ** 2 / (second.count - 1))
    half = float(stats.t.ppf(0.5 + confidence / 2, freedom)) * spread**0.5
    return Estimate(gap, gap - half, gap + half, spread**0.5, count)


def interquartile_mean(scores: ArrayLike, axis: int | tuple[int, ...] | None = None) -> Floats:
    """Return the mean of the middle half of the values over ``axis`` (all axes by default).

    ``n // 4`` values are cut at either end, as :func:`scipy.stats.trim_mean` does.
    """
    array = np.asarray(scores, dtype=np.float64)
    axes = (
        tuple(range(array.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    )
    kept = [a for a in range(array.ndim) if a not in {x % array.ndim for x in axes}]
    flat = array.transpose(*kept, *axes).reshape(*(array.shape[a] for a in kept), -1)
    count = flat.shape[-1]
    cut = count // 4
    return np.asarray(np.sort(flat, axis=-1)[..., cut : count - cut].mean(axis=-1))


def stratified_bootstrap(
    scores: ArrayLike,
    statistic: Callable[[Floats], Floats],
    repetitions: int = DEFAULT_REPETITIONS,
    seed: int = 0,
) -> Floats:
    """Return the statistic of ``repetitions`` resamples, drawn anew within each task.

    Args:
        scores: ``[R, T]``; ``[R]`` is one task.
        statistic: maps ``[repetitions, R, T]`` to ``[repetitions]``.
        repetitions: number of resamples.
        seed: of the resampling.
    """
    array = np.asarray(scores, dtype=np.float64)
    array = array[:, None] if array.ndim == 1 else array
    runs, tasks = array.shape
    picks = np.random.default_rng(seed).integers(0, runs, size=(repetitions, runs, tasks))
    return np.asarray(statistic(array[picks, np.arange(tasks)]), dtype=np.float64)


def bootstrap_interval(
    scores: ArrayLike,
    statistic: Callable[[Floats], Floats] = lambda resamples: interquartile_mean(
        resamples, axis=(1, 2)
    ),
    confidence: float = DEFAULT_CONFIDENCE,
    repetitions: int = DEFAULT_REPETITIONS,
    seed: int = 0,
) -> Estimate:
    """Return a statistic of ``[R, T]`` scores with its stratified bootstrap interval.

    The plain percentile interval is too narrow for ten seeds: the resamples' variance is short by
    ``(R - 1) / R``, and their tails are Gaussian where Student's are due. The interval is therefore
    the expanded percentile interval (Hesterberg, "What Teachers Should Know About the Bootstrap",
    The American Statistician 69, 2015, section 4.3), with ``T (R - 1)`` degrees of freedom.
    """
    array = np.asarray(scores, dtype=np.float64)
    array = array[:, None] if array.ndim == 1 else array
    runs, tasks = array.shape
    value = float(statistic(array[None])[0])
    if runs < 2:
        return Estimate(value, np.nan, np.nan, np.nan, runs)
    resampled = stratified_bootstrap(array, statistic, repetitions, seed)
    tail = _expanded_tail(runs, tasks * (runs - 1), confidence)
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), float(resampled.std(ddof=1)), runs)


def seeds_interval(values: ArrayLike) -> Estimate:
    """Return the interquartile mean of ``[R]`` runs with its bootstrap interval.

    Of fewer than :data:`FEWEST_TO_RESAMPLE` runs it is their mean, with Student's interval.
    """
    array = np.asarray(values, dtype=np.float64)
    return mean_estimate(array) if array.size < FEWEST_TO_RESAMPLE else bootstrap_interval(array)


def bootstrap_band(
    scores: ArrayLike,
    statistic: Callable[[Floats], Floats] = lambda resamples: interquartile_mean(resamples, axis=1),
    confidence: float = DEFAULT_CONFIDENCE,
    repetitions: int = DEFAULT_REPETITIONS,
    seed: int = 0,
) -> tuple[Floats, Floats, Floats]:
    """Return a statistic of curves with a pointwise bootstrap band, whole curves being redrawn.

    Args:
        scores: ``[R, M]``: one curve a run.
        statistic: maps ``[n, R, M]`` to ``[n, M]``.
        confidence: of the band at each point, widened as in :func:`bootstrap_interval`.
        repetitions: number of resamples.
        seed: of the resampling.

    Returns:
        Value, lower and upper end, ``[M]`` each; one run has no band, its ends are the value.
    """
    array = np.asarray(scores, dtype=np.float64)
    runs = len(array)
    value = np.asarray(statistic(array[None])[0])
    if runs < 2:
        return value, value, value
    picks = np.random.default_rng(seed).integers(0, runs, size=(repetitions, runs))
    # Point by point: all resamples of a long curve at once would take gigabytes.
    drawn = np.stack([statistic(column[picks][..., None])[:, 0] for column in array.T], axis=1)
    tail = _expanded_tail(runs, runs - 1, confidence)
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return value, low, high


def _expanded_tail(runs: int, freedom: int, confidence: float) -> float:
    """Return the quantile at which an expanded percentile interval ends (Hesterberg, 2015)."""
    quantile = stats.t.ppf(0.5 - confidence / 2, freedom) * np.sqrt(runs / (runs - 1))
    return float(stats.norm.cdf(quantile))


def probability_of_improvement(scores: ArrayLike, reference: ArrayLike) -> Floats:
    """Return P(X > Y) + P(X = Y) / 2 for random runs of two algorithms, averaged over tasks.

    Args:
        scores: ``[..., R, T]``.
        reference: ``[..., S, T]``.

    Returns:
        ``[...]``; 0.5 where neither is better.
    """
    first = np.asarray(scores, dtype=np.float64)[..., :, None, :]
    second = np.asarray(reference, dtype=np.float64)[..., None, :, :]
    wins = (first > second) + 0.5 * (first == second)
    return np.asarray(wins.mean(axis=(-3, -2, -1)))


def improvement_interval(
    scores: ArrayLike,
    reference: ArrayLike,
    confidence: float = DEFAULT_CONFIDENCE,
    repetitions: int = DEFAULT_REPETITIONS,
    seed: int = 0,
) -> Estimate:
    """Return the probability of improvement with its percentile bootstrap interval.

    Runs of the two algorithms are redrawn independently of each other, within each task.

    Args:
        scores: ``[R, T]``; ``[R]`` is one task.
        reference: ``[S, T]``.
        confidence: of the interval, whose ends are NaN where either has fewer than two runs.
        repetitions: number of resamples.
        seed: of the resampling.
    """
    first, second = (np.asarray(x, dtype=np.float64) for x in (scores, reference))
    first, second = (x[:, None] if x.ndim == 1 else x for x in (first, second))
    value, count = float(probability_of_improvement(first, second)), min(len(first), len(second))
    if count < 2:
        return Estimate(value, np.nan, np.nan, np.nan, count)

    def redrawn(array: Floats, stream: int) -> Floats:
        runs, tasks = array.shape
        random = np.random.default_rng((seed, stream))
        return array[random.integers(0, runs, size=(repetitions, runs, tasks)), np.arange(tasks)]

    drawn = probability_of_improvement(redrawn(first, 0), redrawn(second, 1))
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Estimate(value, float(low), float(high), float(drawn.std(ddof=1)), count)


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> Floats:
    """Return the share of runs that score above each threshold, averaged over tasks.

    Args:
        scores: ``[..., R, T]``.
        thresholds: ``[M]``.

    Returns:
        ``[..., M]``, falling.
    """
    above = np.asarray(scores, dtype=np.float64)[..., None] > np.asarray(thresholds)
    return np.asarray(above.mean(axis=(-3, -2)))


def seeds_warning(seeds: int, minimum: int = MINIMUM_SEEDS) -> str | None:
    """Return a warning where there are too few seeds to tell algorithms apart, else ``None``."""
    if seeds >= minimum:
        return None
    if seeds < 2:
        return "one seed: differences between algorithms cannot be told from luck in training"
    smallest = 2.0 ** (1 - seeds)
    return (
        f"only {seeds} seeds: the smallest p that a paired sign test can reach is {smallest:.3g}; "
        f"use {minimum} or more"
    )


def _finite(values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64).ravel()
    return array[np.isfinite(array)]
