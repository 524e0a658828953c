"""The sections of a comparison's page, and its Markdown."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from agents.comparison import figures, request, tables
from agents.comparison.grouping import Group
from agents.comparison.runs import TRAINED, Run, read_run
from agents.comparison.summary import Summary, summarise
from marec_env.evaluation.statistics import FEWEST_TO_RESAMPLE
from marec_env.io import write_text
from marec_env.reporting.drawing import Figure
from marec_env.reporting.page import Section, render_markdown, render_page
from marec_env.reporting.table import TextTable
from marec_env.shipped import typed

_CURVES_LEAD = (
    "Curves of the evaluation: the same sessions at every point, without exploration, beside "
    "baselines. All other curves: training sessions that ended since the last point, with "
    "exploration; in the first iterations only short sessions can have ended, so curves rise there "
    "by themselves."
)
_TRAINING_LEAD = (
    "Means over the requests of an iteration, with exploration, and what the learner says of its "
    "updates. Healthy: entropy falls slowly, KL divergence stays small, explained variance rises "
    "towards 1."
)


def as_page(summary: Summary, title: str, command: str) -> str:
    """Return the HTML page with its title; ``command`` is how to make it again."""
    return render_page(title, lead_of(summary), summary.notes, sections_of(summary, command))


def as_markdown(summary: Summary, title: str, command: str) -> str:
    """Return the page's words and tables as Markdown, for a repository."""
    sections = sections_of(summary, command, drawn=False)
    return render_markdown(title, lead_of(summary), summary.notes, sections)


def lead_of(summary: Summary) -> list[str]:
    """Return how to read the numbers."""
    runs, count = sum(len(g.runs) for g in summary.grouping.groups), len(summary.experiments)
    teams = f"{count} trained {'team' if count == 1 else 'experiments'}"
    intervals = "Means with 95 % intervals over sessions, given this one trained team."
    if any(row.over == "seeds" for row in summary.experiments):
        intervals = (
            "Trained experiments: interquartile mean over seeds with 95 % bootstrap intervals over "
            f"seeds (fewer than {FEWEST_TO_RESAMPLE} seeds: mean, Student's interval). Policies "
            "not trained here, and experiments of one seed: mean with 95 % intervals over sessions."
        )
    met = f"{summary.sessions:,} sessions" if summary.users else f"{summary.sessions:,} episodes"
    lead = [
        f"{teams} ({runs} {'run' if runs == 1 else 'runs'}), every policy on the same "
        f"{met} (seed {summary.cohort}) under common random numbers.",
        intervals,
    ]
    if not summary.users:
        return lead
    return [
        *lead,
        "(p): privileged, reads the users' hidden state; a bound, not a competitor. F of "
        "recommenders of whole slates counts neutral values for the components they do without.",
    ]


def sections_of(summary: Summary, command: str, drawn: bool = True) -> list[Section]:
    """Return the page's sections in order; empty ones are left out.

    Args:
        summary: of the runs.
        command: how to make the page again.
        drawn: whether with figures.
    """
    sections = []

    def add(
        title: str,
        lead: Sequence[str],
        found: Sequence[TextTable | None],
        draw: Callable[[Summary], list[Figure]] = lambda _: [],
    ) -> None:
        section = Section(title, [t for t in found if t], draw(summary) if drawn else [], lead)
        if section.tables or section.figures:
            sections.append(section)

    regret = "Regret is what the best privileged policy reaches more on the same sessions; "
    star = "* marks differences whose 95 % interval leaves out zero."
    add(
        "Outcomes",
        [f"{regret}{star}" if summary.users else star],
        [tables.outcomes_table(summary), tables.difference_table(summary)],
        figures.outcome_figures,
    )
    add(
        "Learning curves",
        [_CURVES_LEAD],
        [],
        lambda summary: figures.curve_figures(summary.grouping.groups, summary.others),
    )
    add(
        "How it learned",
        [_TRAINING_LEAD],
        [],
        lambda summary: figures.training_figures(summary.grouping.groups),
    )
    add(
        "Between experiments",
        [
            "P(improvement): that a seed drawn from the first does better than one drawn from "
            "the second; 0.5 where neither is better. Differences are taken seed by seed "
            "(* zero lies outside the 95 % interval); the pairing factor tells how many times "
            "wider the interval would be without pairing."
        ],
        tables.pair_tables(summary),
        figures.profile_figures,
    )
    add(
        "One request",
        request.request_lead(summary),
        request.request_tables(summary),
        request.request_figures,
    )
    add(
        "Funnel",
        [
            "How many of the items truly relevant to the user at a request survive each stage, "
            "and which component lost the others. 'Best by score' is what the slate would hold "
            "without diversity and exploration; a negative loss there is a gain."
        ],
        tables.funnel_tables(summary),
        figures.funnel_figures,
    )
    add(
        "User groups",
        [
            "With more than two groups, the best and the worst are picked by their values, "
            "which makes their gap look larger than it is."
        ],
        [tables.gaps_table(summary)],
        figures.group_figures,
    )
    add(
        "Exposure of providers and items",
        _exposure_lead(summary),
        [*tables.exposure_tables(summary), tables.cold_table(summary)],
        figures.exposure_figures,
    )
    further = (tables.quality_table, tables.list_table, tables.further_table)
    add("Ranking quality and further outcomes", [], [table(summary) for table in further])
    add("Component objectives", [], [tables.objectives_table(summary)])
    add("Agents", [], [tables.agents_table(summary)])
    lead = [
        "What objectives and F are made of. For recommenders of whole slates, terms that judge the "
        "candidates take the slate for them, and those that judge no slate are neutral."
    ]
    add("Reward terms", lead, [tables.terms_table(summary)])
    lead = ["Keys that differ; all others are the same in every experiment."]
    add("Configuration differences", lead, [tables.configuration_table(summary)])
    return [*sections, Section("Runs", [tables.runs_table(summary)], verbatim=[command])]


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


def write_run_report(path: Path, suffix: str = "") -> Path:
    """Write the page of one run into its folder as ``report.html`` and return its place.

    A run that is not finished, or was not evaluated, has a page too, which says so.

    Args:
        path: the run's folder.
        suffix: of the evaluation's and the page's name, where it is not the run's own.

    Raises:
        RunError: the folder is not a run's, or cannot be written.
    """
    run, place = read_run(path, f"evaluation{suffix}.json"), path / f"report{suffix}.html"
    write_text(place, run_page(run))
    return place


def run_page(run: Run) -> str:
    """Return the page of one run."""
    title = f"{run.name}: {run.algorithm}, seed {run.seed}"
    command = f"{typed('evaluate')} {shlex.quote(str(run.path))}"
    whole = replace(run, defects=())
    if run.evaluation is not None:
        summary = summarise([whole], label=TRAINED)
        notes = [*run.defects, *summary.notes]
        return render_page(title, lead_of(summary), notes, sections_of(summary, command))
    groups = [Group(TRAINED, (whole,))]
    sections = [
        Section("Learning curves", figures=figures.curve_figures(groups), lead=[_CURVES_LEAD]),
        Section("How it learned", figures=figures.training_figures(groups), lead=[_TRAINING_LEAD]),
    ]
    notes = [*run.defects, *(f"data: {line}" for line in run.warnings)]
    shown = [*(s for s in sections if s.figures), Section("Runs", verbatim=[command])]
    return render_page(title, [], notes, shown)
