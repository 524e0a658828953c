"""The leaderboard as tables, a page and a document."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents.comparison import tables
from agents.comparison.grouping import seed_ranges
from agents.comparison.summary import PerformanceProfile, Summary
from agents.runs.folder import RunFolder
from agents.runs.manifest import Manifest, read_manifest
from agents.suite.algorithms import ALGORITHMS
from agents.suite.board import Claim, Standing, claim_of, profile_of, standings
from agents.suite.runs import TaskRuns
from agents.suite.tasks import SUITE, TASKS, WITHOUT
from marec_env.evaluation.statistics import Estimate
from marec_env.reporting.charts import Line, lines_figure
from marec_env.reporting.drawing import interval, shown
from marec_env.reporting.page import Section
from marec_env.reporting.table import TextTable

_LEAD = (
    "Clicks a session; every policy of a task meets the same sessions under common random numbers. "
    "Trained: interquartile mean over seeds with its 95 % bootstrap interval. (p): reads the "
    "users' hidden state; a bound, not a competitor.",
    "Scores: how far a run got from random play (0) to the oracle (1) of its task. Score and rank "
    "are over the tasks and seeds that all algorithms have, the seeds of each task redrawn apart "
    "(Agarwal et al., 2021).",
)
_CLAIMS_LEAD = (
    "A claim holds if the ability adds at least the share of clicks that is claimed, by five "
    "standard errors of the difference between equal seeds, and if the control takes it away: what "
    "the team sees of the field comes from other sessions, and what is left of the gain is not "
    "told from zero, or no more than a quarter of it."
)


@dataclass(frozen=True)
class Board:
    """Everything that a page of the suite shows."""

    tasks: Sequence[TaskRuns]
    summaries: Mapping[str, Summary]
    claims: Mapping[str, Claim]
    standings: Sequence[Standing]
    profile: PerformanceProfile | None
    notes: Sequence[str]

    def tables(self) -> list[TextTable]:
        """Return what the terminal shows."""
        found = [scores_table(self), claims_table(self), standings_table(self), wins_table(self)]
        return [table for table in found if table.rows]


def board_of(
    tasks: Sequence[TaskRuns], summaries: Mapping[str, Summary],
    controls: Mapping[str, Mapping[int, float] | None],
) -> Board:  # fmt: skip
    """Return the leaderboard of finished runs.

    Args:
        tasks: with their runs.
        summaries: by task, those that have finished runs.
        controls: by task, clicks by seed under its control.
    """
    claims = {
        name: claim
        for name, summary in summaries.items()
        if (claim := claim_of(TASKS[name], summary, controls.get(name)))
    }
    notes: dict[str, None] = {}
    for task in tasks:
        asked = {run.label: run for run in task.runs}
        left = sum(run.read() is None for run in asked.values())
        if left:
            notes[f"{task.name}: {left} of {len(asked)} runs are missing or unfinished"] = None
    for name, summary in summaries.items():
        notes |= {f"{name}: {note}": None for note in summary.notes if not _expected(note)}
    table = standings(summaries)
    return Board(tasks, summaries, claims, table, profile_of(summaries), list(notes))


def _expected(note: str) -> bool:
    """Whether a note says what is meant: algorithms that differ in rewards or pipeline."""
    differing = ("F is not the same sum", "the pipelines differ", "no oracle")
    return note.startswith(differing) or "is of another pipeline" in note


def _algorithms(board: Board) -> list[str]:
    rows = [row.label for summary in board.summaries.values() for row in summary.experiments]
    return list(dict.fromkeys(rows))


def scores_table(board: Board) -> TextTable:
    """Return the table of tasks and algorithms; an algorithm's place in the task in brackets."""
    names = _algorithms(board)
    others = list(
        dict.fromkeys(tables.name_of(r) for s in board.summaries.values() for r in s.others)
    )
    body = []
    for task, summary in board.summaries.items():
        found = {row.label: row.values["clicks"] for row in summary.experiments}
        places = sorted(found, key=lambda name: -found[name].value)
        beside = {tables.name_of(row): row.values["clicks"] for row in summary.others}
        cells = [
            f"{interval(found[n], chr(10))}\n({places.index(n) + 1})" if n in found else "-"
            for n in names
        ]
        body.append(
            [task, *cells, *(shown(beside[n].value) if n in beside else "-" for n in others)]
        )
    return TextTable("Clicks a session (place)", ["task", *names, *others], body)


def claims_table(board: Board) -> TextTable:
    """Return what came of the claims."""
    body = []
    for name, claim in board.claims.items():
        task = TASKS[name]
        control = "-"
        if claim.shuffled is not None:
            control = f"{claim.shuffled.mean():.3g} ({task.shuffled} of other sessions)"
        body.append(
            [
                name,
                f"{task.better} over {task.worse}",
                f"{claim.better.mean():.3g} and {claim.worse.mean():.3g}",
                _signed(claim.share, "%"),
                f"{claim.errors:.1f}",
                str(claim.difference.count),
                control,
                f"≥ {100 * task.least:g} %",
                "yes" if claim.holds(task) else "no",
            ]
        )  # fmt: skip
    header = ["task", "claim", "clicks (means)", "difference", "standard errors", "seeds",
              "control", "claimed", "holds"]  # fmt: skip
    return TextTable("What the tasks claim", header, body)


def _signed(estimate: Estimate, unit: str = "") -> str:
    factor = 100.0 if unit == "%" else 1.0
    parts = [factor * x for x in (estimate.value, estimate.low, estimate.high)]
    told = f"{parts[0]:+.1f}{unit and ' ' + unit}"
    return f"{told}\n[{parts[1]:+.1f}, {parts[2]:+.1f}]" if math.isfinite(parts[1]) else told


def standings_table(board: Board) -> TextTable:
    """Return scores and ranks over all tasks."""
    rows = [[s.algorithm, interval(s.score, "\n"), interval(s.rank, "\n")] for s in board.standings]
    return TextTable("Over all tasks", ["algorithm", "score", "mean rank"], rows)


def wins_table(board: Board) -> TextTable:
    """Return the probabilities of improvement over all tasks."""
    names = [standing.algorithm for standing in board.standings]
    rows = [
        [s.algorithm, *(interval(s.over[n], "\n") if n in s.over else "-" for n in names)]
        for s in board.standings
    ]
    title = "P(a run of the row beats one of the column), mean over tasks"
    return TextTable(title, ["algorithm", *names], rows if len(names) > 1 else [])


def _seconds(board: Board) -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = {}
    for task in board.tasks:
        for run in task.runs:
            if run.begun and run.seconds:
                found.setdefault((task.name, run.algorithm), []).append(run.seconds)
    return found


def times_table(board: Board) -> TextTable:
    """Return the CPU seconds of a run, and what ten seeds of all take on two cores."""
    found = _seconds(board)
    names = list(dict.fromkeys(name for _, name in found))
    rows = []
    for task in dict.fromkeys(task for task, _ in found):
        means = [found.get((task, name), []) for name in names]
        rows.append([task, *(f"{sum(m) / len(m):.0f}" if m else "-" for m in means)])
    total = sum(sum(m) for m in found.values())
    count = sum(len(m) for m in found.values())
    note = f"{count} runs took {total / 3600:.2f} CPU hours, worlds, baselines and controls apart."
    return TextTable("CPU seconds a run", ["task", *names], rows, notes=[note])


def _manifests(board: Board) -> dict[str, Manifest]:
    """Return a manifest of each task that has finished runs."""
    first = {name: summary.grouping.groups[0].runs[0] for name, summary in board.summaries.items()}
    return {name: read_manifest(RunFolder(run.path).manifest) for name, run in first.items()}


def _settings_tables(board: Board) -> list[TextTable]:
    algorithms = [
        [name, ALGORITHMS[name].told if name in ALGORITHMS else "one of your own",
         ", ".join(_own_settings(board, name))]
        for name in _algorithms(board)
    ]  # fmt: skip
    made, manifests = [], _manifests(board)
    for task, manifest in manifests.items():
        config = next(run.config for t in board.tasks if t.name == task for run in t.runs)
        code = sorted({c for g in board.summaries[task].grouping.groups
                       for run in g.runs for c in map(str, run.codes)})  # fmt: skip
        seeds = seed_ranges({s for g in board.summaries[task].grouping.groups for s in g.seeds})
        inputs = "; ".join(f"{k} {v[:12]}" for k, v in manifest.get("inputs", {}).items())
        steps = f"{config.training.env_steps:,}"
        made.append([task, steps, seeds, ", ".join(code), inputs])
    versions = next((m.get("versions", {}) for m in manifests.values()), {})
    told = ", ".join(f"{k} {v}" for k, v in versions.items() if v)
    return [
        TextTable("Algorithms", ["algorithm", "what it is", "laid over the preset"], algorithms,
                  prose=True),
        TextTable("Runs", ["task", "env steps", "seeds", "code", "inputs (hashes)"], made,
                  notes=[f"Versions: {told}."], prose=True),
    ]  # fmt: skip


def _own_settings(board: Board, name: str) -> tuple[str, ...]:
    named = name.split()[0]  # comparisons may name the kind of algorithm behind it
    runs = [run for task in board.tasks for run in task.runs if run.algorithm == named]
    return runs[0].own if runs else ()


def page_of(board: Board, command: str) -> tuple[str, Sequence[str], Callable[..., list[Section]]]:
    """Return title, lead and a function that makes the sections, ``drawn`` or not."""

    def sections(drawn: bool) -> list[Section]:
        figures = []
        if drawn and board.profile is not None:
            found = board.profile
            lines = {name: Line(found.thresholds, *band) for name, band in found.bands.items()}
            figures = [
                lines_figure(
                    lines, ("score: random play 0, oracle 1", "share of runs"),
                    "Performance profile: share of runs, over tasks and seeds, that score more "
                    "than the value below; band: 95 % bootstrap interval.",
                    marked=False, steps="steps-post", span=(-0.02, 1.05),
                )
            ]  # fmt: skip
        claimed = [f"{n}: {TASKS[n].claim} Tried: {TASKS[n].tried}" for n in board.claims]
        parts = [
            Section("Leaderboard", [scores_table(board)]),
            Section("Claims", [claims_table(board)] if board.claims else [],
                    lead=[_CLAIMS_LEAD, *claimed]),
            Section("Over all tasks", [t for t in (standings_table(board), wins_table(board))
                                       if t.rows], figures),
        ]  # fmt: skip
        parts += [
            Section(task, [t for t in (tables.outcomes_table(summary),
                                       *tables.pair_tables(summary)[:1]) if t])
            for task, summary in board.summaries.items()
        ] if drawn else []  # fmt: skip
        without = TextTable(
            "", ["ability", "why"], [list(row) for row in WITHOUT.items()], prose=True
        )
        parts.append(Section("Abilities that no task shows", [without]))
        rest = [times_table(board), *_settings_tables(board)]
        parts.append(Section("How it was made", rest, verbatim=[command]))
        return [part for part in parts if part.tables or part.figures]

    return SUITE, _LEAD, sections


def as_document(board: Board) -> dict[str, Any]:
    """Return the leaderboard as JSON takes it."""
    return {
        "suite": SUITE,
        "notes": list(board.notes),
        "tasks": {
            name: {
                **summary.as_dict(),
                "preset": next(t for t in board.tasks if t.name == name).config.model_dump(
                    mode="json", exclude={"seed", "name", "output", "tracking"}
                ),
                "manifest": {
                    key: _manifests(board)[name].get(key)
                    for key in ("versions", "git", "inputs", "device")
                },
            }
            for name, summary in board.summaries.items()
        },
        "claims": {
            name: {
                "claim": TASKS[name].claim,
                "better": TASKS[name].better,
                "worse": TASKS[name].worse,
                "least": TASKS[name].least,
                "difference": claim.difference.as_json(),
                "share": claim.share.as_json(),
                "standard_errors": claim.errors if math.isfinite(claim.errors) else None,
                "by_seed": {"better": claim.better.tolist(), "worse": claim.worse.tolist()},
                "shuffled": None if claim.shuffled is None else claim.shuffled.tolist(),
                "holds": claim.holds(TASKS[name]),
            }
            for name, claim in board.claims.items()
        },
        "standings": [
            {
                "algorithm": standing.algorithm,
                "score": standing.score.as_json(),
                "rank": standing.rank.as_json(),
                "probability_of_improvement": {k: v.as_json() for k, v in standing.over.items()},
            }
            for standing in board.standings
        ],
        "cpu_seconds": {f"{t}/{a}": values for (t, a), values in _seconds(board).items()},
    }
