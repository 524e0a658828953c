"""A comparison as data: rows, pairs, notes, and the JSON and CSV they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.comparison.grouping import Grouping, group_runs
from agents.comparison.quantities import REGRET
from agents.comparison.row_files import rows_of_file
from agents.comparison.rows import Row, baseline_rows, group_row
from agents.comparison.runs import Run
from agents.comparison.seed_statistics import Pair, Profile, pairs_of, profile_of
from marec_env.evaluation.statistics import Estimate, finite_or_none, seeds_warning
from marec_env.reporting.table import csv_text

__all__ = ["RANKED_BY", "Summary", "summarise"]

RANKED_BY = ("clicks", "return")
"""Quantities in which experiments are compared pair by pair."""


@dataclass(frozen=True)
class Summary:
    """Everything that a comparison found out."""

    grouping: Grouping
    experiments: tuple[Row, ...]
    others: tuple[Row, ...]
    """Policies evaluated beside the runs or read from files."""
    pairs: dict[str, list[Pair]]
    """By quantity."""
    profile: Profile | None
    """Of clicks a session."""
    notes: tuple[str, ...]
    sessions: int
    """Sessions of every evaluation, the same for all."""
    cohort: int
    """Their seed."""

    @property
    def reference(self) -> str | None:
        """The baseline that evaluations took differences to; ``None`` unless all took the same."""
        runs = [run for group in self.grouping.groups for run in group.runs]
        names = {(run.evaluation or {}).get("reference") for run in runs}
        return names.pop() if len(names) == 1 else None

    @property
    def rows(self) -> tuple[Row, ...]:
        """Experiments, then the other policies."""
        return (*self.experiments, *self.others)

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON takes it: numbers that do not exist are null."""
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
            "profile": None
            if self.profile is None
            else {
                "quantity": "clicks",
                "normalised": self.profile.normalised,
                "thresholds": self.profile.thresholds.tolist(),
                "share": {name: band[0].tolist() for name, band in self.profile.bands.items()},
            },
            "configuration": self.grouping.differences(),
            "left_out": {str(run.path): list(run.defects) for run in self.grouping.left_out},
        }

    def as_csv(self) -> str:
        """Return one row for each experiment or policy and quantity."""
        header = ["name", "kind", "quantity", "value", "low", "high", "over", "count"]
        rows = (
            [row.label, row.kind, quantity, *found.as_json().values(), row.over, row.count]
            for row in self.rows
            for quantity, found in row.values.items()
        )
        return csv_text(header, rows)


def summarise(runs: Sequence[Run], files: Sequence[Path] = (), mixed_code: bool = False) -> Summary:
    """Compare runs.

    Args:
        runs: any number of seeds of any number of experiments.
        files: further rows, see :func:`agents.comparison.row_files.rows_of_file`.
        mixed_code: see :func:`agents.comparison.grouping.group_runs`.

    Raises:
        RunError: the runs may not be mixed, or none is sound.
        ConfigError: a file does not fit.
    """
    grouping = group_runs(runs, mixed_code)
    first = grouping.groups[0].runs[0]
    assert first.evaluation is not None
    notes = list(grouping.notes)
    fewest = min(len(group.runs) for group in grouping.groups)
    if (warning := seeds_warning(fewest)) is not None:
        notes.append(warning)
    experiments = tuple(group_row(group) for group in grouping.groups)
    others = baseline_rows(grouping.groups)
    for path in files:
        found, told = rows_of_file(path, first)
        known = {row.label for row in others}
        others += [row for row in found if row.label not in known]
        notes += told
        if repeated := [row.label for row in found if row.label in known]:
            notes.append(f"{', '.join(repeated)} of {path}: left out, rows of that name are there")
    others.sort(key=lambda row: row.kind == "oracle")
    if any(not row.gaps for row in experiments):
        notes.append(
            "some runs were evaluated by an older version, without gaps between user groups and "
            "exposure; 'python evaluate.py run RUN...' evaluates them anew"
        )
    references = {
        (run.evaluation or {}).get("reference") for group in grouping.groups for run in group.runs
    }
    if len(references) > 1:
        listed = ", ".join(sorted(map(str, references)))
        notes.append(f"evaluations took differences to different baselines ({listed}): none shown")
    if all(REGRET not in row.values for row in experiments):
        notes.append("no oracle was evaluated beside the runs: there is no regret")
    return Summary(
        grouping=grouping,
        experiments=experiments,
        others=tuple(others),
        pairs={quantity: pairs_of(experiments, quantity) for quantity in RANKED_BY},
        profile=profile_of(experiments, others, "clicks"),
        notes=tuple(notes),
        sessions=int(first.evaluation["sessions"]),
        cohort=int(first.evaluation["seed"]),
    )


def _row(row: Row) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "intervals_over": row.over,
        "count": row.count,
        "values": {
            name: {**found.as_json(), "by_seed": row.by_seed.get(name, [])}
            for name, found in row.values.items()
        },
        "differences": {name: found.as_json() for name, found in row.differences.items()},
        "funnel": {stage: found.as_json() for stage, found in row.funnel.items()},
        "passing": {stage: found.as_json() for stage, found in row.passing.items()},
        "groups": _nested(row.groups),
        "gaps": _nested(row.gaps),
        "exposure": {
            division: {
                "groups": found.groups,
                "gini": found.gini.as_json(),
                "items": found.items,
                "impressions": found.impressions,
            }
            for division, found in row.exposure.items()
        },
    }


def _pair(pair: Pair) -> dict[str, Any]:
    found = pair.difference
    return {
        "first": pair.first,
        "second": pair.second,
        "probability_of_improvement": pair.improvement.as_json(),
        "difference": None
        if found is None
        else {
            **found.difference.as_json(),
            "seeds": found.difference.count,
            "pairing_factor": finite_or_none(found.pairing_factor),
        },
    }


def _nested(found: dict[str, dict[str, Estimate]]) -> dict[str, Any]:
    return {
        outcome: {name: estimate.as_json() for name, estimate in values.items()}
        for outcome, values in found.items()
    }
