"""How well an attack tells users apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from marec_env.evaluation.statistics import Estimate, improvement_interval, mean_estimate

FALSE_POSITIVES = 0.01
CONFIDENCE = 0.95


def auc(inside: ArrayLike, outside: ArrayLike) -> Estimate:
    """Return the probability that a member scores above a non-member, with Newcombe's interval."""
    return improvement_interval(inside, outside)


def proportion(hits: int, cases: int, confidence: float = CONFIDENCE) -> Estimate:
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
