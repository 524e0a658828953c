"""The parts of ``evaluation.json``: read from one evaluation, or summed up over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from agents.comparison.quantities import STAGES
from marec_env.evaluation.statistics import Estimate, seeds_interval

__all__ = [
    "Exposure",
    "difference_means",
    "estimate_of",
    "intervals",
    "mean_exposure",
    "nested",
    "nested_intervals",
    "passing_of",
    "stack",
]

_NAN = float("nan")


@dataclass(frozen=True)
class Exposure:
    """What groups of items get of the users' attention."""

    groups: int
    gini: Estimate
    items: list[float]
    """Each group's share of the catalog; empty where there are too many groups to list."""
    impressions: list[float]
    """Each group's share of what was shown."""


def passing_of(funnel: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return each stage's count over that of the stage before, of the stages there are."""
    present = [(s.key, value) for s in STAGES if (value := funnel.get(s.key)) is not None]
    return {
        key: value / before if before > 0 else None
        for (_, before), (key, value) in pairwise(present)
    }


def difference_means(team: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the mean paired differences that an evaluation took to its reference."""
    found = {key: numbers.get("difference") for key, numbers in team["outcomes"].items()}
    return {key: gap["mean"] for key, gap in found.items() if gap is not None}


def estimate_of(numbers: Mapping[str, Any]) -> Estimate:
    """Return what a file says of a value; what it does not say is NaN."""
    value, low, high, error = (
        _NAN if numbers.get(key) is None else float(numbers[key])
        for key in ("mean", "low", "high", "standard_error")
    )
    return Estimate(value, low, high, error, int(numbers.get("sessions", 0)))


def stack(
    sources: Sequence[Any], read: Callable[[Any], Mapping[str, float | None]]
) -> dict[str, list[float]]:
    """Return, by name, one value a source; names that any source lacks are left out."""
    read_all = [
        {k: v for k, v in read(source).items() if v is not None and np.isfinite(v)}
        for source in sources
    ]
    names = [name for name in read_all[0] if all(name in values for values in read_all)]
    return {name: [float(values[name]) for values in read_all] for name in names}


def intervals(by_seed: Mapping[str, Sequence[float]]) -> dict[str, Estimate]:
    """Return interquartile means over seeds (of few: means) with their intervals."""
    return {name: seeds_interval(values) for name, values in by_seed.items()}


def _is_nested(policy: Mapping[str, Any], part: str) -> bool:
    """Whether a part is outcome by group, as evaluations have it since gaps are reported."""
    return "gaps" in policy and part in policy


def nested(policy: Mapping[str, Any], part: str) -> dict[str, dict[str, Estimate]]:
    """Return a part of one evaluation by outcome and group; empty if it is of the older form."""
    if not _is_nested(policy, part):
        return {}
    return {
        outcome: {name: estimate_of(numbers) for name, numbers in found.items()}
        for outcome, found in policy[part].items()
    }


def nested_intervals(
    teams: Sequence[Mapping[str, Any]], part: str
) -> dict[str, dict[str, Estimate]]:
    """Return a part of several evaluations by outcome and group, over seeds."""
    if not all(_is_nested(team, part) for team in teams):
        return {}

    def reader(outcome: str) -> Callable[[Any], dict[str, float | None]]:
        return lambda team: {k: v["mean"] for k, v in team[part].get(outcome, {}).items()}

    return {outcome: intervals(stack(teams, reader(outcome))) for outcome in teams[0][part]}


def mean_exposure(teams: Sequence[Mapping[str, Any]]) -> dict[str, Exposure]:
    """Return exposure by division of the catalog, averaged over seeds."""
    found = {}
    for division, first in teams[0].get("exposure", {}).items():
        parts = [team.get("exposure", {}).get(division) for team in teams]
        if any(part is None or part["groups"] != first["groups"] for part in parts):
            continue
        listed = all("impressions" in part for part in parts)
        found[division] = Exposure(
            groups=first["groups"],
            gini=seeds_interval([part["gini"] for part in parts]),
            items=list(first["items"]) if listed else [],
            impressions=np.mean([p["impressions"] for p in parts], axis=0).tolist()
            if listed
            else [],
        )
    return found
