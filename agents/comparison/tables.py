"""The tables of a comparison, the same in the terminal, on the page and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from agents.comparison.grouping import seed_ranges
from agents.comparison.rows import REGRET, STAGES, Row
from agents.comparison.summary import Summary
from marec_env.evaluation.statistics import Estimate
from marec_env.reporting.drawing import interval, sentence, shown
from marec_env.reporting.table import TextTable

OBJECTIVE, TERM, AGENT = "objective/", "term/", "return/"
OUTCOMES = ("clicks", "satisfaction", "length", REGRET, "return", "stayed")
"""User outcomes; regret is to the best privileged policy evaluated beside the run."""
_QUALITY = ("precision", "recall", "f1", "ndcg", "mrr", "hit_rate")
_LISTS = ("diversity", "novelty", "serendipity", "miscalibration", "coverage", "gini")
_HEADINGS = {
    "length": "requests",
    REGRET: "regret in clicks",
    "return": "F a session",
    "team_reward": "F a request",
    "f1": "F1",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "miscalibration": "miscal.",
    "gini": "Gini",
}
_EPISODES = {"length": "steps", "return": "return an episode, mean of agents"}
"""Headings on other people's environments, which have no requests and no F."""
DIVISIONS = {"provider": "Exposure of providers", "popularity": "Exposure by popularity"}
"""Of the catalog, with the titles of their tables."""
_LONGEST = 60  # characters of a configuration value


def name_of(row: Row) -> str:
    """Return a row's label, oracles marked as in every other table."""
    return f"{row.label} (p)" if row.kind == "oracle" else row.label


def heading(quantity: str, summary: Summary) -> str:
    """Return what a quantity of ``evaluation.json`` is called above a column."""
    headings = _HEADINGS if summary.users else _EPISODES
    return headings.get(quantity, quantity.replace("_", " "))


def _cell(estimate: Estimate | None) -> str:
    return "-" if estimate is None else interval(estimate, "\n")


def _marked(estimate: Estimate | None) -> str:
    """Return a signed difference, with a star where zero lies outside its interval."""
    if estimate is None:
        return "-"
    return interval(estimate, "\n", sign="+", mark="*" if estimate.significant else "")


def _table(
    title: str,
    rows: Sequence[Row],
    part: str,
    columns: Iterable[tuple[tuple[str, ...], str]],
    cell: Callable[[Estimate | None], str] = _cell,
) -> TextTable | None:
    """Return a part of the rows' numbers, ``None`` where no row has any.

    Args:
        title: of the table.
        rows: that have something of the part.
        part: of :attr:`agents.comparison.rows.Row.found`.
        columns: names within it and headings; those that no row has are left out.
        cell: what a number is shown as.
    """
    kept = [((part, *key), h) for key, h in columns if any((part, *key) in r.found for r in rows)]
    body = [[name_of(row), *(cell(row.found.get(key)) for key, _ in kept)] for row in rows]
    header = ["policy", *(text for _, text in kept)]
    if part == "values":
        header.insert(1, "seeds")
        for line, row in zip(body, rows, strict=True):
            line.insert(1, f"{len(row.seeds)} ({seed_ranges(row.seeds)})" if row.seeds else "-")
    return TextTable(title, header, body) if kept else None


def _values(title: str, summary: Summary, quantities: Iterable[str]) -> TextTable | None:
    columns = [((key,), heading(key, summary)) for key in quantities]
    return _table(title, summary.rows, "values", columns)


def outcomes_table(summary: Summary) -> TextTable | None:
    """Return user outcomes and F."""
    of = "User outcomes" if summary.users else "Outcomes"
    return _values(f"{of} [95 % interval]", summary, OUTCOMES)


def difference_table(summary: Summary) -> TextTable | None:
    """Return differences to the best baseline, ``None`` where evaluations have no common one."""
    if summary.reference is None:
        return None
    by = "clicks" if summary.users else "return"
    title = f"Paired difference to {summary.reference}, the best by {by} of the runs' own baselines"
    shown = (*OUTCOMES, "returns", "ndcg")
    columns = [((key,), heading(key, summary)) for key in shown]
    rows = [row for row in summary.rows if row.part("differences")]
    return _table(title, rows, "differences", columns, _marked)


def quality_table(summary: Summary) -> TextTable | None:
    """Return ranking metrics."""
    return _values("Ranking against the truly relevant items", summary, _QUALITY)


def list_table(summary: Summary) -> TextTable | None:
    """Return what the slates were like."""
    return _values("Slates and catalog", summary, _LISTS)


def further_table(summary: Summary) -> TextTable | None:
    """Return the outcomes that no other table has, those of a user model's own among them."""
    known = {*OUTCOMES, *_QUALITY, *_LISTS}
    found = dict.fromkeys(key for row in summary.rows for key in row.values)
    families = (OBJECTIVE, TERM, AGENT)
    rest = [key for key in found if key not in known and not key.startswith(families)]
    return _values("Further outcomes", summary, rest)


def _family(title: str, summary: Summary, prefix: str) -> TextTable | None:
    found = {row: [key for key in row.values if key.startswith(prefix)] for row in summary.rows}
    keys = dict.fromkeys(key for mine in found.values() for key in mine)
    columns = [((key,), key.removeprefix(prefix)) for key in keys]
    rows = [row for row, mine in found.items() if mine]
    return _table(title, rows, "values", columns)


def objectives_table(summary: Summary) -> TextTable | None:
    """Return the components' own objectives, ``None`` where nobody has any."""
    return _family("Objectives f_i a request", summary, OBJECTIVE)


def agents_table(summary: Summary) -> TextTable | None:
    """Return each agent's return, ``None`` where agents are not paid apart."""
    return _family("Return an episode, of each agent", summary, AGENT)


def terms_table(summary: Summary) -> TextTable | None:
    """Return every term of the objectives and of F, before weights, one's own among them."""
    return _family("Reward terms a request, before weights", summary, TERM)


def pair_tables(summary: Summary) -> list[TextTable]:
    """Return the experiments against each other, in clicks and in F."""
    titles = {"clicks": "clicks a session", "return": heading("return", summary)}
    header = ["pair", "P(improvement)", "difference, same seeds", "seeds", "pairing factor"]
    tables = []
    for quantity, pairs in summary.pairs.items():
        rows = []
        for pair in pairs:
            gap, told = pair.difference, ["-", "-", "-"]
            if gap is not None:
                told = [_marked(gap), str(gap.count), shown(gap.pairing_factor)]
            rows.append([f"{pair.first} over {pair.second}", _cell(pair.improvement), *told])
        if rows:
            title = f"{sentence(titles[quantity])}, pair by pair"
            tables.append(TextTable(title, header, rows))
    return tables


def funnel_tables(summary: Summary) -> list[TextTable | None]:
    """Return how many relevant items get past each stage, and who lost how many."""
    rows = [row for row in summary.rows if row.part("funnel")]
    columns = [((stage.key,), stage.title) for stage in STAGES]
    counts = _table("Relevant items a request", rows, "funnel", columns)
    losses = [
        [name_of(row), *(f"{a.value - b.value:.3g}" for a, b in pairwise(stages))]
        for row in rows
        if len(stages := row.part("funnel").values()) == len(STAGES)
    ]
    header = ["policy", *(f"lost by {stage.decides}" for stage in STAGES[1:])]
    return [counts, TextTable("Who lost them", header, losses) if losses else None]


def gaps_table(summary: Summary) -> TextTable | None:
    """Return the gaps between user groups, ``None`` where no evaluation has them."""
    rows = [row for row in summary.rows if row.nested("gaps")]
    keys = dict.fromkeys(key[1:] for row in rows for key in row.found if key[0] == "gaps")
    columns = [(key, ": ".join(key)) for key in keys]
    return _table("Gaps between user groups", rows, "gaps", columns)


def exposure_tables(summary: Summary) -> list[TextTable]:
    """Return exposure in proportion to the catalog: of providers, and by popularity."""
    tables = []
    for division, title in DIVISIONS.items():
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


def cold_table(summary: Summary) -> TextTable | None:
    """Return what items get of which next to nothing is known, ``None`` where there are none."""
    body = []
    for row in summary.rows:
        shares = row.exposure.get("cold")
        if shares is not None and len(shares.rates) == 2:
            parts = [part[1] for part in (shares.items, shares.impressions, shares.clicks)]
            told = [f"{100 * part:.3g} %" for part in parts]
            told += [shown(math.nan if rate is None else rate) for rate in shares.rates[::-1]]
            body.append([name_of(row), *told])
    header = ["policy", "of the catalog", "of what was shown", "of clicks"]
    header += ["clicks a place", "clicks a place of other items"]
    title = "Cold items: at most one interaction is known"
    return TextTable(title, header, body) if body else None


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
    found = [(r, g.label, "compared") for g in summary.grouping.groups for r in g.runs]
    found += [(r, r.name, f"left out: {'; '.join(r.defects)}") for r in summary.grouping.left_out]
    rows = [[str(run.path), label, str(run.seed), run.code, state] for run, label, state in found]
    return TextTable("", ["run", "experiment", "seed", "code", "state"], rows, prose=True)
