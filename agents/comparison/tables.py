"""The tables of a comparison, the same in the terminal, on the page and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from agents.comparison.grouping import seed_ranges
from agents.comparison.quantities import (
    LISTS,
    OBJECTIVE,
    OUTCOMES,
    QUALITY,
    STAGES,
    Quantity,
    objectives,
)
from agents.comparison.rows import Row
from agents.comparison.runs import Run
from agents.comparison.summary import Summary
from marec_env.evaluation.statistics import Estimate
from marec_env.reporting.drawing import shown
from marec_env.reporting.table import TextTable

__all__ = [
    "configuration_table",
    "difference_table",
    "exposure_tables",
    "funnel_tables",
    "further_table",
    "gaps_table",
    "list_table",
    "name_of",
    "objectives_table",
    "outcomes_table",
    "pair_tables",
    "quality_table",
    "runs_table",
]

_LONGEST = 60  # characters of a configuration value


def name_of(row: Row) -> str:
    """Return a row's label, oracles marked as in every other table."""
    return f"{row.label} (p)" if row.kind == "oracle" else row.label


def outcomes_table(summary: Summary) -> TextTable:
    """Return user outcomes and F."""
    return _table(
        "User outcomes [95 % interval]", summary.rows, [q for q in OUTCOMES if q.key != "returns"]
    )


def difference_table(summary: Summary) -> TextTable | None:
    """Return differences to the best baseline, ``None`` where evaluations have no common one."""
    rows = [row for row in summary.rows if row.differences]
    wanted = (*OUTCOMES, *(q for q in QUALITY if q.key == "ndcg"))
    columns = [q for q in wanted if any(q.key in row.differences for row in rows)]
    if summary.reference is None or not columns:
        return None
    body = [
        [
            name_of(row),
            *(
                _marked(row.differences[q.key]) if q.key in row.differences else "-"
                for q in columns
            ),
        ]
        for row in rows
    ]
    title = (
        f"Paired difference to {summary.reference}, the best by clicks of the runs' own baselines"
    )
    return TextTable(title, ["policy", *(q.short for q in columns)], body)


def quality_table(summary: Summary) -> TextTable:
    """Return ranking metrics."""
    return _table("Ranking against the truly relevant items", summary.rows, QUALITY)


def list_table(summary: Summary) -> TextTable:
    """Return what the slates were like."""
    return _table("Slates and catalog", summary.rows, LISTS)


def further_table(summary: Summary) -> TextTable | None:
    """Return the outcomes that no other table has, those of a user model's own among them."""
    known = {q.key for q in (*OUTCOMES, *QUALITY, *LISTS)} - {"returns"}
    keys = dict.fromkeys(key for row in summary.rows for key in row.values)
    found = [
        Quantity(key, key.replace("_", " "), key, None)
        for key in keys
        if key not in known and not key.startswith(OBJECTIVE)
    ]
    return _table("Further outcomes", summary.rows, found) if found else None


def objectives_table(summary: Summary) -> TextTable | None:
    """Return the components' own objectives, ``None`` where nobody has any."""
    keys = dict.fromkeys(key for row in summary.rows for key in row.values)
    found = objectives(keys)
    rows = [row for row in summary.rows if any(q.key in row.values for q in found)]
    return _table("Objectives f_i a request", rows, found) if found else None


def pair_tables(summary: Summary) -> list[TextTable]:
    """Return the experiments against each other, in clicks and in F."""
    titles = {"clicks": "Clicks a session, pair by pair", "return": "F a session, pair by pair"}
    header = ["pair", "P(improvement)", "difference, same seeds", "seeds", "pairing factor"]
    tables = []
    for quantity, pairs in summary.pairs.items():
        rows = []
        for pair in pairs:
            cells = [f"{pair.first} over {pair.second}", _cell(pair.improvement)]
            if pair.difference is None:
                cells += ["-", "-", "-"]
            else:
                gap = pair.difference
                cells += [
                    _marked(gap.difference),
                    str(gap.difference.count),
                    shown(gap.pairing_factor),
                ]
            rows.append(cells)
        if rows:
            tables.append(TextTable(titles[quantity], header, rows))
    return tables


def funnel_tables(summary: Summary) -> list[TextTable]:
    """Return how many relevant items get past each stage, and who lost how many."""
    rows = [row for row in summary.rows if row.funnel]
    if not rows:
        return []
    counts = [
        [name_of(row), *(_cell(row.funnel[s.key]) if s.key in row.funnel else "-" for s in STAGES)]
        for row in rows
    ]
    losses = []
    for row in rows:
        if any(stage.key not in row.funnel for stage in STAGES):
            continue
        values = [row.funnel[stage.key].value for stage in STAGES]
        steps = [f"{before - after:.3g}" for before, after in pairwise(values)]
        losses.append([name_of(row), *steps])
    tables = [TextTable("Relevant items a request", ["policy", *(s.title for s in STAGES)], counts)]
    if losses:
        header = ["policy", *(f"lost by {s.decides}" for s in STAGES[1:])]
        tables.append(TextTable("Who lost them", header, losses))
    return tables


def gaps_table(summary: Summary) -> TextTable | None:
    """Return the gaps between user groups, ``None`` where no evaluation has them."""
    rows = [row for row in summary.rows if row.gaps]
    columns = list(
        dict.fromkeys(
            (outcome, kind) for row in rows for outcome, gaps in row.gaps.items() for kind in gaps
        )
    )
    if not columns:
        return None
    body = [
        [
            name_of(row),
            *(
                _cell(row.gaps[outcome][kind]) if kind in row.gaps.get(outcome, {}) else "-"
                for outcome, kind in columns
            ),
        ]
        for row in rows
    ]
    header = ["policy", *(f"{outcome}: {kind}" for outcome, kind in columns)]
    return TextTable("Gaps between user groups", header, body)


def exposure_tables(summary: Summary) -> list[TextTable]:
    """Return exposure in proportion to the catalog: of providers, and by popularity."""
    tables = []
    for division, title in (
        ("provider", "Exposure of providers"),
        ("popularity", "Exposure by popularity"),
    ):
        rows = [row for row in summary.rows if division in row.exposure]
        rows = [row for row in rows if row.exposure[division].groups > 1]
        body = []
        for row in rows:
            found = row.exposure[division]
            ratios = [i / c for i, c in zip(found.impressions, found.items, strict=True) if c > 0]
            body.append(
                [
                    name_of(row),
                    str(found.groups),
                    _cell(found.gini),
                    f"{min(ratios):.3g}" if ratios else "-",
                    f"{max(ratios):.3g}" if ratios else "-",
                ]
            )
        if body:
            header = ["policy", "groups", "Gini", "least shown", "most shown"]
            tables.append(TextTable(title, header, body))
    return tables


def configuration_table(summary: Summary) -> TextTable | None:
    """Return the configuration keys in which experiments differ, ``None`` without any."""
    labels = [row.label for row in summary.experiments]
    rows = [
        [key, *(_shortened(cell) for cell in cells)]
        for key, cells in summary.grouping.differences().items()
    ]
    return TextTable("", ["key", *labels], rows, prose=True) if rows else None


def runs_table(summary: Summary) -> TextTable:
    """Return every run given, with what it was made by or why it is left out."""
    rows = [
        [str(run.path), group.label, str(run.seed), _codes(run), "compared"]
        for group in summary.grouping.groups
        for run in group.runs
    ]
    rows += [
        [
            str(run.path),
            run.name,
            str(run.seed),
            _codes(run),
            f"left out: {'; '.join(run.defects)}",
        ]
        for run in summary.grouping.left_out
    ]
    return TextTable("", ["run", "experiment", "seed", "code", "state"], rows, prose=True)


def _codes(run: Run) -> str:
    return ", then ".join(map(str, run.codes))


def _table(title: str, rows: Sequence[Row], quantities: Sequence[Quantity]) -> TextTable:
    columns = [q for q in quantities if any(q.key in row.values for row in rows)]
    body = [
        [
            name_of(row),
            f"{len(row.seeds)} ({seed_ranges(row.seeds)})" if row.seeds else "-",
            *(_cell(row.values[q.key]) if q.key in row.values else "-" for q in columns),
        ]
        for row in rows
    ]
    return TextTable(title, ["policy", "seeds", *(q.short for q in columns)], body)


def _cell(estimate: Estimate) -> str:
    if not math.isfinite(estimate.value):
        return "-"
    if not math.isfinite(estimate.low):
        return shown(estimate.value)
    return f"{shown(estimate.value)}\n[{shown(estimate.low)}, {shown(estimate.high)}]"


def _marked(estimate: Estimate) -> str:
    """Return a signed difference, with a star where zero lies outside its interval."""
    mark = "*" if estimate.low > 0 or estimate.high < 0 else ""
    ends = f"\n[{estimate.low:+.3g}, {estimate.high:+.3g}]" if math.isfinite(estimate.low) else ""
    return f"{estimate.value:+.3g}{mark}{ends}"


def _shortened(cell: str) -> str:
    return cell if len(cell) <= _LONGEST else f"{cell[: _LONGEST - 1]}…"
