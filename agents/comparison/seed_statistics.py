"""What the seeds tell: who is better how surely, and how the seeds are spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agents.comparison.rows import Row
from marec_env.evaluation.statistics import (
    FEWEST_TO_RESAMPLE,
    Estimate,
    PairedDifference,
    bootstrap_band,
    improvement_interval,
    paired_difference,
)

__all__ = ["Pair", "Profile", "pairs_of", "profile_of"]

_THRESHOLDS = 101  # of a performance profile


@dataclass(frozen=True)
class Pair:
    """One experiment against another in one quantity."""

    first: str
    second: str
    improvement: Estimate
    """The probability that a seed of the first has a larger value than one of the second."""
    difference: PairedDifference | None
    """First less second, seed by seed; ``None`` with fewer than two seeds in common."""


@dataclass(frozen=True)
class Profile:
    """The share of seeds that reach each threshold."""

    thresholds: NDArray[np.float64]
    """``[M]``."""
    normalised: bool
    """Whether a threshold is a share of the way from random play (0) to the oracle (1)."""
    bands: dict[str, tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]
    """By experiment: value, lower and upper end, ``[M]`` each; too few seeds have no band."""


def pairs_of(rows: Sequence[Row], quantity: str) -> list[Pair]:
    """Return every pair of experiments, the later ones in ``rows`` against the earlier."""
    known = [row for row in rows if row.seeds and quantity in row.by_seed]
    pairs = []
    for place, second in enumerate(known):
        for first in known[place + 1 :]:
            ours = dict(zip(first.seeds, first.by_seed[quantity], strict=True))
            theirs = dict(zip(second.seeds, second.by_seed[quantity], strict=True))
            common = sorted(ours.keys() & theirs.keys())
            difference = (
                paired_difference([ours[s] for s in common], [theirs[s] for s in common])
                if len(common) > 1
                else None
            )
            improvement = improvement_interval(list(ours.values()), list(theirs.values()))
            if improvement.count < FEWEST_TO_RESAMPLE:
                improvement = replace(improvement, low=np.nan, high=np.nan)
            pairs.append(Pair(first.label, second.label, improvement, difference))
    return pairs


def profile_of(rows: Sequence[Row], others: Sequence[Row], quantity: str) -> Profile | None:
    """Return the experiments' performance profile; ``None`` unless one has several seeds.

    Args:
        rows: the experiments.
        others: policies evaluated beside them, for the scale.
        quantity: what is reached.
    """
    known = {row.label: row.by_seed[quantity] for row in rows if len(row.seeds) > 1}
    if not known:
        return None
    floor = [r.values[quantity].value for r in others if r.label == "random" and r.kind != "oracle"]
    roof = [r.values[quantity].value for r in others if r.kind == "oracle"]
    normalised = bool(floor and roof and max(roof) > floor[0])
    start, span = (floor[0], max(roof) - floor[0]) if normalised else (0.0, 1.0)
    scores = {name: (np.array(values) - start) / span for name, values in known.items()}
    ends = np.concatenate(list(scores.values()))
    margin = 0.1 * (float(np.ptp(ends)) or 1.0)
    thresholds = np.linspace(ends.min() - margin, ends.max() + margin, _THRESHOLDS)
    bands = {}
    for name, values in scores.items():
        reached = (values[:, None] > thresholds).astype(np.float64)
        middle, low, high = bootstrap_band(reached, lambda resamples: resamples.mean(axis=-1))
        few = len(values) < FEWEST_TO_RESAMPLE
        bands[name] = (middle, middle, middle) if few else (middle, low, high)
    return Profile(thresholds, normalised, bands)
