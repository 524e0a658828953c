"""Quality of probability forecasts, and distances between distributions."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, wasserstein_distance

__all__ = [
    "Forecast",
    "area_under_curve",
    "evaluate_forecast",
    "jensen_shannon",
    "wasserstein",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_BINS = 10  # of equal numbers of cases, in the calibration curve
_CLIP = 1e-9  # probabilities are kept this far from 0 and 1 in the log loss


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

    def as_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return asdict(self)


def area_under_curve(score: Floats, event: Bools) -> float:
    """Return the area under the ROC curve, ties counting half; NaN if all or none happened."""
    positive = int(event.sum())
    negative = event.size - positive
    if positive == 0 or negative == 0:
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[event].sum() - positive * (positive + 1) / 2) / (positive * negative))


def _auc_error(auc: float, positive: int, negative: int) -> float:
    first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (positive - 1) * (first - auc**2)
    variance += (negative - 1) * (second - auc**2)
    return float(np.sqrt(max(variance, 0.0) / (positive * negative)))


def evaluate_forecast(probability: Floats, event: Bools) -> Forecast:
    """Compare forecasts ``[M]`` with what happened, bool ``[M]`` (at least one of either kind)."""
    positive = int(event.sum())
    auc = area_under_curve(probability, event)
    clipped = np.clip(probability, _CLIP, 1 - _CLIP)
    rate = float(np.clip(event.mean(), _CLIP, 1 - _CLIP))
    order = np.argsort(probability, kind="stable")
    bins = [part for part in np.array_split(order, _BINS) if part.size]
    curve = tuple(
        (float(probability[part].mean()), float(event[part].mean()), int(part.size))
        for part in bins
    )
    return Forecast(
        cases=event.size,
        events=positive,
        auc=auc,
        auc_error=_auc_error(auc, positive, event.size - positive),
        log_loss=float(-np.where(event, np.log(clipped), np.log1p(-clipped)).mean()),
        null_log_loss=float(-(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))),
        calibration_error=sum(abs(mean - seen) * n for mean, seen, n in curve) / event.size,
        curve=curve,
    )


def jensen_shannon(first: Floats, second: Floats) -> float:
    """Return the Jensen-Shannon divergence of two histograms in bits: 0 equal, 1 disjoint."""
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2

    def against_middle(part: Floats) -> float:
        there = part > 0
        return float((part[there] * np.log2(part[there] / middle[there])).sum())

    return (against_middle(p) + against_middle(q)) / 2


def wasserstein(first: Floats, second: Floats) -> float:
    """Return the Wasserstein-1 distance of two samples, in their unit."""
    return float(wasserstein_distance(first, second))
