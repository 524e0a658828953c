"""The tables of a comparison, the same in the terminal, on the page and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from agents.comparison.grouping import seed_ranges
from agents.comparison.rows import REGRET, STAGES, Row
from agents.comparison.summary import Summary
from marec_env.evaluation.statistics import Estimate
from marec_env.reporting.drawing import interval, shown
from marec_env.reporting.table import TextTable

__all__ = [
    "OBJECTIVE",
    "OUTCOMES",
    "Quantity",
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

OBJECTIVE = "objective/"
_LONGEST = 60  # characters of a configuration value


@dataclass(frozen=True, slots=True)
class Quantity:
    """A column of a table or an axis of a figure."""

    key: str
    """Its name in ``evaluation.json``."""
    short: str
    """A heading."""
    title: str = ""
    """With its unit, for figures."""
    higher_is_better: bool = True


OUTCOMES = (
    Quantity("clicks", "clicks", "clicks a session"),
    Quantity("satisfaction", "satisfaction", "satisfaction (0 to 1), session mean"),
    Quantity("length", "requests", "session length in requests"),
    Quantity(REGRET, "regret", "regret: clicks a session below the oracle", False),
    Quantity("return", "F", "F a session"),
    Quantity("stayed", "stayed"),
)
"""User outcomes; regret is to the best privileged policy evaluated beside the run."""
_QUALITY = (
    Quantity("precision", "precision"),
    Quantity("recall", "recall"),
    Quantity("f1", "F1"),
    Quantity("ndcg", "NDCG"),
    Quantity("mrr", "MRR"),
    Quantity("hit_rate", "hit rate"),
)
_LISTS = (
    Quantity("diversity", "diversity"),
    Quantity("novelty", "novelty"),
    Quantity("serendipity", "serendipity"),
    Quantity("miscalibration", "miscal."),
    Quantity("coverage", "coverage"),
    Quantity("gini", "Gini"),
)


def name_of(row: Row) -> str:
    """Return a row's label, oracles marked as in every other table."""
    return f"{row.label} (p)" if row.kind == "oracle" else row.label


def _cell(estimate: Estimate | None) -> str:
    return "-" if estimate is None else interval(estimate, "\n")


def _marked(estimate: Estimate | None) -> str:
    """Return a signed difference, with a star where zero lies outside its interval."""
    if estimate is None:
        return "-"
    mark = "*" if estimate.low > 0 or estimate.high < 0 else ""
    ends = f"\n[{estimate.low:+.3g}, {estimate.high:+.3g}]" if math.isfinite(estimate.low) else ""
    return f"{estimate.value:+.3g}{mark}{ends}"


def _body(
    rows: Sequence[Row],
    part: str,
    keys: Sequence[tuple[str, ...]],
    cell: Callable[[Estimate | None], str] = _cell,
) -> list[list[str]]:
    """Return a line for each row: its name, and a cell for each name within a part."""
    return [[name_of(row), *(cell(row.found.get((part, *key))) for key in keys)] for row in rows]


def _table(title: str, rows: Sequence[Row], quantities: Sequence[Quantity]) -> TextTable:
    columns = [q for q in quantities if any(q.key in row.values for row in rows)]
    body = _body(rows, "values", [(q.key,) for q in columns])
    for line, row in zip(body, rows, strict=True):
        line.insert(1, f"{len(row.seeds)} ({seed_ranges(row.seeds)})" if row.seeds else "-")
    return TextTable(title, ["policy", "seeds", *(q.short for q in columns)], body)


def outcomes_table(summary: Summary) -> TextTable:
    """Return user outcomes and F."""
    return _table("User outcomes [95 % interval]", summary.rows, OUTCOMES)


def difference_table(summary: Summary) -> TextTable | None:
    """Return differences to the best baseline, ``None`` where evaluations have no common one."""
    rows = [row for row in summary.rows if row.differences]
    wanted = (*OUTCOMES, Quantity("returns", "returns"), Quantity("ndcg", "NDCG"))
    columns = [q for q in wanted if any(q.key in row.differences for row in rows)]
    if summary.reference is None or not columns:
        return None
    title = (
        f"Paired difference to {summary.reference}, the best by clicks of the runs' own baselines"
    )
    body = _body(rows, "differences", [(q.key,) for q in columns], _marked)
    return TextTable(title, ["policy", *(q.short for q in columns)], body)


def quality_table(summary: Summary) -> TextTable:
    """Return ranking metrics."""
    return _table("Ranking against the truly relevant items", summary.rows, _QUALITY)


def list_table(summary: Summary) -> TextTable:
    """Return what the slates were like."""
    return _table("Slates and catalog", summary.rows, _LISTS)


def further_table(summary: Summary) -> TextTable | None:
    """Return the outcomes that no other table has, those of a user model's own among them."""
    known = {q.key for q in (*OUTCOMES, *_QUALITY, *_LISTS)}
    keys = dict.fromkeys(key for row in summary.rows for key in row.values)
    found = [
        Quantity(key, key.replace("_", " "))
        for key in keys
        if key not in known and not key.startswith(OBJECTIVE)
    ]
    return _table("Further outcomes", summary.rows, found) if found else None


def objectives_table(summary: Summary) -> TextTable | None:
    """Return the components' own objectives, ``None`` where nobody has any."""
    keys = dict.fromkeys(
        key for row in summary.rows for key in row.values if key.startswith(OBJECTIVE)
    )
    rows = [row for row in summary.rows if any(key in row.values for key in keys)]
    found = [Quantity(key, key.removeprefix(OBJECTIVE)) for key in keys]
    return _table("Objectives f_i a request", rows, found) if found else None


def pair_tables(summary: Summary) -> list[TextTable]:
    """Return the experiments against each other, in clicks and in F."""
    titles = {"clicks": "Clicks a session, pair by pair", "return": "F a session, pair by pair"}
    header = ["pair", "P(improvement)", "difference, same seeds", "seeds", "pairing factor"]
    tables = []
    for quantity, pairs in summary.pairs.items():
        rows = []
        for pair in pairs:
            gap = pair.difference
            told = ["-", "-", "-"]
            if gap is not None:
                count, factor = str(gap.difference.count), shown(gap.pairing_factor)
                told = [_marked(gap.difference), count, factor]
            rows.append([f"{pair.first} over {pair.second}", _cell(pair.improvement), *told])
        if rows:
            tables.append(TextTable(titles[quantity], header, rows))
    return tables


def funnel_tables(summary: Summary) -> list[TextTable]:
    """Return how many relevant items get past each stage, and who lost how many."""
    rows = [row for row in summary.rows if row.funnel]
    if not rows:
        return []
    counts = _body(rows, "funnel", [(stage.key,) for stage in STAGES])
    losses = [
        [name_of(row), *(f"{a.value - b.value:.3g}" for a, b in pairwise(row.funnel.values()))]
        for row in rows
        if len(row.funnel) == len(STAGES)
    ]
    tables = [TextTable("Relevant items a request", ["policy", *(s.title for s in STAGES)], counts)]
    if losses:
        header = ["policy", *(f"lost by {s.decides}" for s in STAGES[1:])]
        tables.append(TextTable("Who lost them", header, losses))
    return tables


def gaps_table(summary: Summary) -> TextTable | None:
    """Return the gaps between user groups, ``None`` where no evaluation has them."""
    keys = dict.fromkeys(k[1:] for row in summary.rows for k in row.found if k[0] == "gaps")
    if not keys:
        return None
    rows = [row for row in summary.rows if row.nested("gaps")]
    header = ["policy", *(f"{outcome}: {kind}" for outcome, kind in keys)]
    return TextTable("Gaps between user groups", header, _body(rows, "gaps", list(keys)))


def exposure_tables(summary: Summary) -> list[TextTable]:
    """Return exposure in proportion to the catalog: of providers, and by popularity."""
    tables = []
    for division, title in (
        ("provider", "Exposure of providers"),
        ("popularity", "Exposure by popularity"),
    ):
        body = []
        for row in summary.rows:
            shares = row.exposure.get(division)
            if shares is None or shares.groups < 2:
                continue
            ratios = [ratio for ratio in shares.ratios() if math.isfinite(ratio)]
            ends = [f"{end(ratios):.3g}" if ratios else "-" for end in (min, max)]
            gini = _cell(row.found["gini", division])
            body.append([name_of(row), str(shares.groups), gini, *ends])
        if body:
            header = ["policy", "groups", "Gini", "least shown", "most shown"]
            tables.append(TextTable(title, header, body))
    return tables


def configuration_table(summary: Summary) -> TextTable | None:
    """Return the configuration keys in which experiments differ, ``None`` without any."""
    rows = [
        [key, *(c if len(c) <= _LONGEST else f"{c[: _LONGEST - 1]}…" for c in cells)]
        for key, cells in summary.grouping.differences().items()
    ]
    header = ["key", *(row.label for row in summary.experiments)]
    return TextTable("", header, rows, prose=True) if rows else None


def runs_table(summary: Summary) -> TextTable:
    """Return every run given, with what it was made by or why it is left out."""
    compared = [
        (run, group.label, "compared") for group in summary.grouping.groups for run in group.runs
    ]
    left_out = [
        (run, run.name, f"left out: {'; '.join(run.defects)}") for run in summary.grouping.left_out
    ]
    rows = [
        [str(run.path), label, str(run.seed), run.code, state]
        for run, label, state in (*compared, *left_out)
    ]
    return TextTable("", ["run", "experiment", "seed", "code", "state"], rows, prose=True)
