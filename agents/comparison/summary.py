"""A comparison as data: rows, pairs, the performance profile, and the JSON and CSV they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.comparison.grouping import Grouping, group_runs
from agents.comparison.rows import PARTS, REGRET, Row, baseline_rows, group_row, rows_of_file
from agents.comparison.runs import Run
from marec_env.evaluation.comparison import RANKED_BY
from marec_env.evaluation.statistics import (
    FEWEST_TO_RESAMPLE,
    Estimate,
    bootstrap_band,
    finite_or_none,
    improvement_interval,
    paired_difference,
    seeds_warning,
)
from marec_env.reporting.table import csv_text

THRESHOLDS = 101
"""Of a performance profile."""


@dataclass(frozen=True)
class Pair:
    """One experiment against another in one quantity."""

    first: str
    second: str
    improvement: Estimate
    """The probability that a seed of the first has a larger value than one of the second."""
    difference: Estimate | None
    """First less second, seed by seed; ``None`` with fewer than two seeds in common."""


@dataclass(frozen=True)
class PerformanceProfile:
    """The share of seeds that reach each threshold in what policies are ranked by."""

    quantity: str
    thresholds: NDArray[np.float64]
    """``[M]``."""
    normalised: bool
    """Whether a threshold is a share of the way from random play (0) to the oracle (1)."""
    bands: dict[str, tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]
    """By experiment: value, lower and upper end, ``[M]`` each; too few seeds have no band."""


@dataclass(frozen=True)
class Summary:
    """Everything that a comparison found out."""

    grouping: Grouping
    experiments: tuple[Row, ...]
    others: tuple[Row, ...]
    """Policies evaluated beside the runs or read from files."""
    pairs: dict[str, list[Pair]]
    """By quantity."""
    profile: PerformanceProfile | None
    notes: tuple[str, ...]
    sessions: int
    """Sessions of every evaluation, the same for all."""
    cohort: int
    """Their seed."""
    reference: str | None
    """The baseline that evaluations took differences to; ``None`` unless all took the same."""

    @property
    def users(self) -> bool:
        """Whether there are users who click: not on other people's environments."""
        return any("clicks" in row.values for row in self.rows)

    @property
    def rows(self) -> tuple[Row, ...]:
        """Experiments, then the other policies."""
        return (*self.experiments, *self.others)

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON takes it: numbers that do not exist are null."""
        profile = self.profile
        return {
            "notes": list(self.notes),
            "evaluation": {"sessions": self.sessions, "seed": self.cohort},
            "reference": self.reference,
            "experiments": {
                row.label: {
                    "experiment": group.runs[0].experiment,
                    "runs": [str(run.path) for run in group.runs],
                    "seeds": group.seeds,
                    "code": sorted({str(code) for run in group.runs for code in run.codes}),
                    **_row(row),
                }
                for row, group in zip(self.experiments, self.grouping.groups, strict=True)
            },
            "policies": {row.label: _row(row) for row in self.others},
            "pairs": {
                quantity: [_pair(pair) for pair in pairs] for quantity, pairs in self.pairs.items()
            },
            "profile": profile
            and {
                "quantity": profile.quantity,
                "normalised": profile.normalised,
                "thresholds": profile.thresholds.tolist(),
                "share": {name: band[0].tolist() for name, band in profile.bands.items()},
            },
            "configuration": self.grouping.differences(),
            "left_out": {str(run.path): list(run.defects) for run in self.grouping.left_out},
        }

    def as_csv(self) -> str:
        """Return one row for each experiment or policy and quantity."""
        return csv_text(
            ["name", "kind", "quantity", "value", "low", "high", "over", "count"],
            [
                [row.label, row.kind, quantity, *found.as_json().values(), row.over, row.count]
                for row in self.rows
                for quantity, found in row.values.items()
            ],
        )


def summarise(
    runs: Sequence[Run], files: Sequence[Path] = (), mixed_code: bool = False,
    label: str | None = None,
) -> Summary:  # fmt: skip
    """Compare runs.

    Args:
        runs: any number of seeds of any number of experiments.
        files: further rows, see :func:`agents.comparison.rows.rows_of_file`.
        mixed_code: see :func:`agents.comparison.grouping.group_runs`.
        label: what the only experiment is called; by default its name or algorithm.

    Raises:
        RunError: the runs may not be mixed, or none is sound.
        ConfigError: a file does not fit.
    """
    grouping = group_runs(runs, mixed_code)
    if label is not None:
        [group] = grouping.groups
        grouping = replace(grouping, groups=(replace(group, label=label),))
    sound = [run for group in grouping.groups for run in group.runs]
    notes = list(grouping.notes)
    if warning := seeds_warning(min(len(group.runs) for group in grouping.groups)):
        notes.append(warning)
    experiments = tuple(group_row(group) for group in grouping.groups)
    others = baseline_rows(grouping.groups)
    for path in files:
        found, told = rows_of_file(path, sound[0])
        known = {row.label for row in others}
        others += [row for row in found if row.label not in known]
        notes += told
        if repeated := [row.label for row in found if row.label in known]:
            notes.append(f"{', '.join(repeated)} of {path}: left out, rows of that name are there")
    others.sort(key=lambda row: row.kind == "oracle")
    references = {run.evaluated.reference for run in sound}
    if len(references) > 1:
        listed = ", ".join(sorted(map(str, references)))
        notes.append(f"evaluations took differences to different baselines ({listed}): none shown")
    users = any("clicks" in row.values for row in experiments)
    if users and all(REGRET not in row.values for row in experiments):
        notes.append("no oracle was evaluated beside the runs: there is no regret")
    return Summary(
        grouping=grouping,
        experiments=experiments,
        others=tuple(others),
        pairs={quantity: _pairs(experiments, quantity) for quantity in RANKED_BY},
        profile=_profile(experiments, others),
        notes=tuple(notes),
        sessions=sound[0].evaluated.sessions,
        cohort=sound[0].evaluated.seed,
        reference=references.pop() if len(references) == 1 else None,
    )


def _pairs(rows: Sequence[Row], quantity: str) -> list[Pair]:
    """Return every pair of experiments, the later ones in ``rows`` against the earlier."""
    known = [row for row in rows if quantity in row.by_seed]
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
                improvement = Estimate(improvement.value, count=improvement.count)
            pairs.append(Pair(first.label, second.label, improvement, difference))
    return pairs


def _profile(rows: Sequence[Row], others: Sequence[Row]) -> PerformanceProfile | None:
    """Return the experiments' profile, scaled by the others; ``None`` unless one has seeds."""
    by = next((key for key in RANKED_BY if all(key in row.values for row in rows)), RANKED_BY[0])
    known = {row.label: row.by_seed[by] for row in rows if len(row.seeds) > 1}
    if not known:
        return None
    found = [(row, row.values[by].value) for row in others if by in row.values]
    floor = [value for row, value in found if row.label == "random" and row.kind != "oracle"]
    roof = [value for row, value in found if row.kind == "oracle"]
    normalised = bool(floor and roof and max(roof) > floor[0])
    start, span = (floor[0], max(roof) - floor[0]) if normalised else (0.0, 1.0)
    scores = {name: (np.array(values) - start) / span for name, values in known.items()}
    ends = np.concatenate(list(scores.values()))
    margin = 0.1 * (float(np.ptp(ends)) or 1.0)
    thresholds = np.linspace(ends.min() - margin, ends.max() + margin, THRESHOLDS)
    bands = {}
    for name, values in scores.items():
        reached = (values[:, None] > thresholds).astype(np.float64)
        middle, low, high = bootstrap_band(reached, lambda drawn: drawn.mean(axis=-1))
        few = len(values) < FEWEST_TO_RESAMPLE
        bands[name] = (middle, middle, middle) if few else (middle, low, high)
    return PerformanceProfile(by, thresholds, normalised, bands)


def _row(row: Row) -> dict[str, Any]:
    parts: dict[str, Any] = {name: {} for name in PARTS}
    for (*names, last), found in row.found.items():
        place = parts
        for name in names:
            place = place.setdefault(name, {})
        place[last] = found.as_json()
    for name, numbers in parts["values"].items():
        numbers["by_seed"] = row.by_seed.get(name, [])
    gini = parts.pop("gini")
    exposure = {
        name: {**shares.model_dump(exclude={"clicks"}), "gini": gini[name]}
        for name, shares in row.exposure.items()
    }
    about = {"kind": row.kind, "intervals_over": row.over, "count": row.count}
    return {**about, **parts, "exposure": exposure}


def _pair(pair: Pair) -> dict[str, Any]:
    gap = pair.difference
    factor = gap and finite_or_none(gap.pairing_factor)
    return {
        "first": pair.first,
        "second": pair.second,
        "probability_of_improvement": pair.improvement.as_json(),
        "difference": gap and {**gap.as_json(), "seeds": gap.count, "pairing_factor": factor},
    }
