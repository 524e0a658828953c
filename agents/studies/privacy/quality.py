"""How well an attack tells users apart, and which ε it proves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from marec_env.evaluation.statistics import Estimate, improvement_interval, mean_estimate

__all__ = ["FALSE_POSITIVES", "auc", "epsilon_proved", "proportion", "true_positives"]

FALSE_POSITIVES = 0.01
_CONFIDENCE = 0.95


def auc(inside: ArrayLike, outside: ArrayLike) -> Estimate:
    """Return the probability that a member scores above a non-member, with Newcombe's interval."""
    return improvement_interval(inside, outside)


def proportion(hits: int, cases: int, confidence: float = _CONFIDENCE) -> Estimate:
    """Return a share with the interval of Clopper and Pearson, which covers at least as stated."""
    tail = (1.0 - confidence) / 2
    low = float(stats.beta.ppf(tail, hits, cases - hits + 1)) if hits else 0.0
    high = float(stats.beta.ppf(1 - tail, hits + 1, cases - hits)) if hits < cases else 1.0
    return Estimate(hits / cases, low, high, count=cases)


def true_positives(inside: ArrayLike, outside: ArrayLike) -> Estimate:
    """Return the share of members above all but 1 % of the non-members, the threshold taken as
    given.
    """
    first, second = np.asarray(inside), np.sort(np.asarray(outside))
    allowed = math.floor(FALSE_POSITIVES * second.size)
    return proportion(int((first > second[second.size - 1 - allowed]).sum()), first.size)


def over_models(
    inside: Sequence[NDArray[np.float64]], outside: Sequence[NDArray[np.float64]]
) -> dict[str, Estimate]:
    """Return AUC and true positives, means over attacked models; of one model, over its users."""
    measures = {"auc": auc, "tpr": true_positives}
    found = {}
    for name, measure in measures.items():
        each = [measure(one, other) for one, other in zip(inside, outside, strict=True)]
        values = [estimate.value for estimate in each]
        found[name] = each[0] if len(each) == 1 else mean_estimate(values)
    return found


def epsilon_proved(
    inside: ArrayLike, outside: ArrayLike, delta: float, confidence: float = _CONFIDENCE
) -> float:
    """Return a lower bound of ε from an attack's scores in many trials with a user and without.

    The threshold is chosen on the first half of the trials and judged on the second, where the
    rates of true and false positives have Clopper and Pearson's bounds (M. Jagielski, J. Ullman and
    A. Oprea, "Auditing differentially private machine learning", NeurIPS 2020).

    Args:
        inside: ``[n]``, scores of trials with the user.
        outside: ``[m]``, without.
        delta: δ of the mechanism.
        confidence: with which the bound holds.
    """
    first, second = np.asarray(inside, dtype=np.float64), np.asarray(outside, dtype=np.float64)
    train = first[: first.size // 2], second[: second.size // 2]
    test = first[first.size // 2 :], second[second.size // 2 :]

    def bound(threshold: float, pair: tuple[NDArray[np.float64], NDArray[np.float64]]) -> float:
        # Each bound at half the error: both hold together.
        sure = confidence
        hits = proportion(int((pair[0] > threshold).sum()), pair[0].size, sure)
        alarms = proportion(int((pair[1] > threshold).sum()), pair[1].size, sure)
        found = 0.0
        if hits.low > delta:
            found = math.log((hits.low - delta) / alarms.high)
        if 1.0 - alarms.high > delta:
            found = max(found, math.log((1.0 - alarms.high - delta) / max(1.0 - hits.low, 1e-300)))
        return max(found, 0.0)

    places = np.quantile(np.concatenate(train), np.linspace(0.0, 1.0, 101))
    return bound(float(max(places, key=lambda place: bound(float(place), train))), test)
