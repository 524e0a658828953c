"""The sections of a comparison's page, and its Markdown."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agents.comparison import tables
from agents.comparison.curves import CURVES, learning_curve
from agents.comparison.grouping import Group
from agents.comparison.quantities import OBJECTIVE, OUTCOMES, STAGES
from agents.comparison.rows import Row
from agents.comparison.runs import Run, read_run
from agents.comparison.summary import Summary, summarise
from agents.comparison.tables import name_of
from agents.runs.folder import open_run
from marec_env.evaluation.figures import (
    NEUTRAL,
    ORACLE,
    Bar,
    Figure,
    bars_figure,
    color_of,
    curves_figure,
    groups_figure,
    lines_figure,
    steps_figure,
)
from marec_env.evaluation.page import Section, render_page
from marec_env.io import write_text

__all__ = ["as_markdown", "as_page", "lead_of", "run_page", "sections_of", "write_run_report"]

_MOST_BARS = 24  # rows that a bar chart shows; the table has all
_MOST_LINES = 7  # colours that are told apart
_DRAWN = ("clicks", "satisfaction", "length", "regret", "return")
_CURVES_LEAD = (
    "Training sessions that ended since the last point, with exploration. In the first iterations "
    "only short sessions can have ended, so curves rise there by themselves."
)
_FAIR_OUTCOMES = {
    "clicks": "clicks a session",
    "satisfaction": "satisfaction (0 to 1)",
    "length": "session length in requests",
}


def as_page(summary: Summary, title: str, command: str) -> str:
    """Return the HTML page.

    Args:
        summary: of the runs.
        title: of the page.
        command: how to make it again.
    """
    return render_page(title, lead_of(summary), summary.notes, sections_of(summary, command))


def as_markdown(summary: Summary, title: str, command: str) -> str:
    """Return the page's words and tables as Markdown, for a repository."""
    parts = [f"# {title}\n", *(f"{line}\n" for line in lead_of(summary))]
    parts += [f"> **Note:** {note}\n" for note in summary.notes]
    for section in sections_of(summary, command, figures=False):
        parts.append(f"## {section.title}\n")
        parts += [f"{line}\n" for line in section.lead]
        for table in section.tables:
            parts += [f"### {table.title}\n"] if table.title else []
            parts.append(table.as_markdown())
        parts += [f"```bash\n{text}\n```\n" for text in section.verbatim]
    return "\n".join(parts)


def lead_of(summary: Summary) -> list[str]:
    """Return how to read the numbers."""
    seeds = sum(len(group.runs) for group in summary.grouping.groups)
    over_seeds = any(row.over == "seeds" for row in summary.experiments)
    lead = [
        f"{len(summary.experiments)} trained "
        f"{'team' if len(summary.experiments) == 1 else 'experiments'} ({seeds} "
        f"{'run' if seeds == 1 else 'runs'}), every policy on the same {summary.sessions:,} "
        f"sessions (seed {summary.cohort}) under common random numbers."
    ]
    if over_seeds:
        lead.append(
            "Trained experiments: interquartile mean over seeds with 95 % bootstrap intervals over "
            "seeds. Policies that were not trained here, and experiments of one seed: mean with "
            "95 % intervals over sessions."
        )
    else:
        lead.append("Means with 95 % intervals over sessions, given this one trained team.")
    lead.append(
        "(p): privileged, reads the users' hidden state; a bound, not a competitor. F of "
        "recommenders of whole slates counts neutral values for the components they do without."
    )
    return lead


def sections_of(summary: Summary, command: str, figures: bool = True) -> list[Section]:
    """Return the page's sections in order; empty ones are left out.

    Args:
        summary: of the runs.
        command: how to make the page again.
        figures: whether to draw.
    """
    sections = [
        Section(
            "Outcomes",
            [t for t in [tables.outcomes_table(summary), tables.difference_table(summary)] if t],
            _outcome_figures(summary) if figures else (),
            [
                "Regret is what the best privileged policy reaches more on the same sessions; "
                "* marks differences whose 95 % interval leaves out zero."
            ],
        ),
        Section(
            "Learning curves",
            figures=_curve_figures(summary.grouping.groups) if figures else (),
            lead=[_CURVES_LEAD],
        ),
        Section(
            "Between experiments",
            tables.pair_tables(summary),
            _profile_figures(summary) if figures else (),
            [
                "P(improvement): that a seed drawn from the first does better than one drawn from "
                "the second; 0.5 where neither is better. Differences are taken seed by seed "
                "(* zero lies outside the 95 % interval); the pairing factor tells how many times "
                "wider the interval would be without pairing."
            ],
        ),
        Section(
            "Funnel",
            tables.funnel_tables(summary),
            _funnel_figures(summary) if figures else (),
            [
                "How many of the items truly relevant to the user at a request survive each stage, "
                "and which component lost the others. 'Best by score' is what the slate would hold "
                "without diversity and exploration; a negative loss there is a gain."
            ],
        ),
        Section(
            "User groups",
            [table for table in [tables.gaps_table(summary)] if table],
            _group_figures(summary) if figures else (),
            [
                "With more than two groups, the best and the worst are picked by their values, "
                "which makes their gap look larger than it is."
            ],
        ),
        Section(
            "Exposure of providers and items",
            tables.exposure_tables(summary),
            _exposure_figures(summary) if figures else (),
            _exposure_lead(summary),
        ),
        Section(
            "Ranking quality and further outcomes",
            [
                tables.quality_table(summary),
                tables.list_table(summary),
                *(t for t in [tables.further_table(summary)] if t),
            ],
        ),
        Section("Component objectives", [t for t in [tables.objectives_table(summary)] if t]),
        Section(
            "Configuration differences",
            [t for t in [tables.configuration_table(summary)] if t],
            lead=["Keys that differ; all others are the same in every experiment."],
        ),
        Section("Runs", [tables.runs_table(summary)], verbatim=[command]),
    ]
    return [s for s in sections if s.tables or s.figures or s.verbatim]


def _color(summary: Summary, row: Row) -> str:
    if row in summary.experiments:
        return color_of(summary.experiments.index(row))
    return ORACLE if row.kind == "oracle" else NEUTRAL


def _outcome_figures(summary: Summary) -> list[Figure]:
    figures = []
    for quantity in OUTCOMES:
        rows = [row for row in summary.rows if quantity.key in row.values][:_MOST_BARS]
        if quantity.key not in _DRAWN or not any(row.seeds for row in rows):
            continue
        if quantity.key == "return":  # neutral values in place of objectives would mislead
            rows = [row for row in rows if any(key.startswith(OBJECTIVE) for key in row.values)]
        bars = [Bar(name_of(r), r.values[quantity.key], _color(summary, r)) for r in rows]
        better = "higher is better" if quantity.higher_is_better else "lower is better"
        caption = (
            f"{quantity.short[:1].upper()}{quantity.short[1:]}, with 95 % intervals; {better}."
        )
        figures.append(bars_figure(quantity.title, bars, caption))
    return figures


def _curve_figures(groups: Sequence[Group]) -> list[Figure]:
    figures = []
    for name, title in CURVES.items():
        found = {group.label: learning_curve(group, name) for group in groups}
        curves = {label: curve for label, curve in found.items() if curve is not None}
        if curves:
            figures.append(curves_figure(curves, title))
    return figures


def _profile_figures(summary: Summary) -> list[Figure]:
    profile = summary.profile
    if profile is None:
        return []
    axis = (
        "clicks a session, as a share of the way from random play (0) to the oracle (1)"
        if profile.normalised
        else "clicks a session"
    )
    caption = (
        "Performance profile: share of seeds that reach more than the value below; band: 95 % "
        "bootstrap interval. A curve further to the right is better."
    )
    return [steps_figure(profile.thresholds, profile.bands, (axis, "share of seeds"), caption)]


def _line_rows(summary: Summary, rows: Sequence[Row]) -> list[Row]:
    """Return the rows that lines are drawn for: experiments first, as many as can be told apart."""
    return list(rows)[: max(_MOST_LINES, len(summary.experiments))]


def _funnel_figures(summary: Summary) -> list[Figure]:
    whole = [r for r in summary.rows if all(stage.key in r.funnel for stage in STAGES)]
    if not whole:
        return []
    series = {
        name_of(row): [row.funnel[stage.key].value for stage in STAGES]
        for row in _line_rows(summary, whole)
    }
    caption = "Relevant items that survive each stage of a request, on a logarithmic scale."
    ticks = [stage.title for stage in STAGES]
    shares = {
        stage.decides: {
            name_of(row): row.passing[stage.key]
            for row in _line_rows(summary, whole)
            if stage.key in row.passing
        }
        for stage in STAGES[1:]
    }
    passing = "share of the relevant items that get past"
    return [
        lines_figure(series, ticks, ("", "relevant items a request"), caption, log=True),
        groups_figure(passing, shares, "Where relevant items get lost: what each stage lets past."),
    ]


def _group_figures(summary: Summary) -> list[Figure]:
    figures = []
    for outcome, title in _FAIR_OUTCOMES.items():
        rows = {name_of(r): r.groups[outcome] for r in summary.experiments if outcome in r.groups}
        if rows:
            caption = f"{outcome[:1].upper()}{outcome[1:]} by user group, with 95 % intervals."
            figures.append(groups_figure(title, rows, caption))
    return figures


def _exposure_figures(summary: Summary) -> list[Figure]:
    figures = []
    for division, axis in (("provider", "providers"), ("popularity", "items")):
        rows = [r for r in summary.rows if division in r.exposure]
        rows = [r for r in rows if r.exposure[division].impressions]
        rows = [r for r in rows if r.exposure[division].groups > 1]
        if not rows:
            continue
        shown = {
            name_of(row): [
                i / c if c > 0 else float("nan")
                for i, c in zip(
                    row.exposure[division].impressions, row.exposure[division].items, strict=True
                )
            ]
            for row in _line_rows(summary, rows)
        }
        if division == "popularity":
            count = rows[0].exposure[division].groups
            ticks = [f"band {k + 1}" for k in range(count)]
            ticks[0], ticks[-1] = "least popular fifth", "most popular fifth"
        else:
            # Providers have no names; each line is sorted by itself, from least to most shown.
            shown = {name: sorted(values) for name, values in shown.items()}
            count = rows[0].exposure[division].groups
            ticks = ["least shown", *[""] * (count - 2), "most shown"]
        caption = (
            f"Impressions of {axis} in proportion to their share of the catalog; 1 (dotted) is "
            "proportionate."
        )
        labels = ("", f"exposure of {axis}: impressions / catalog")
        figures.append(lines_figure(shown, ticks, labels, caption, reference=1.0))
    return figures


def _exposure_lead(summary: Summary) -> list[str]:
    lead = [
        "Least and most shown: share of impressions over share of the catalog; 1 is proportionate."
    ]
    providers = [r.exposure["provider"].groups for r in summary.rows if "provider" in r.exposure]
    if providers and max(providers) == 1:
        lead.append(
            "All items have one provider here (environment.catalog.num_providers), so exposure is "
            "told by the popularity of items."
        )
    return lead


def write_run_report(path: Path) -> Path:
    """Write the page of one run into its folder as ``report.html`` and return its place.

    A run that is not finished, or was not evaluated, has a page too, which says so.

    Raises:
        RunError: the folder is not a run's, or cannot be written.
    """
    run, folder = read_run(path), open_run(path)
    write_text(folder.report, run_page(run))
    return folder.report


def run_page(run: Run) -> str:
    """Return the page of one run."""
    title = f"{run.name}: {run.algorithm}, seed {run.seed}"
    command = f"python evaluate.py run {shlex.quote(str(run.path))}"
    whole = replace(run, defects=())
    if run.evaluation is not None:
        summary = summarise([whole])
        notes = [*run.defects, *summary.notes]
        return render_page(title, lead_of(summary), notes, sections_of(summary, command))
    group = Group(run.algorithm, (whole,))
    sections = [
        Section("Learning curves", figures=_curve_figures([group]), lead=[_CURVES_LEAD]),
        Section("Runs", verbatim=[command]),
    ]
    shown = [s for s in sections if s.figures or s.verbatim]
    return render_page(title, [], run.defects, shown)
