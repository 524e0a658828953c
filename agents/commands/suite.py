"""``python evaluate.py suite``: learners on the tasks of ``marec/suite-v0``, and a leaderboard."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.commands.shared import (
    Markdown,
    Overrides,
    command_line,
    listed,
    print_narrow,
    tell,
    written,
)
from agents.entry import USER_ERROR
from agents.runs.train_loop import INTERRUPTED, on_signals
from marec_env.errors import ConfigError, MarecError, unknown_name

if TYPE_CHECKING:
    from agents.comparison.summary import Summary
    from agents.suite.algorithms import Algorithm
    from agents.suite.runs import SuiteRun, TaskRuns

_CLAIMS = "claims"
"""Among ``--algorithms``: on each task the two that its claim compares."""
_BASELINES = ("random", "static", "popularity", "linucb", "oracle_myopic", "oracle")


def command(
    algorithms: Annotated[
        str,
        typer.Option(
            help="Comma-separated: names of the suite's, 'claims' for the two that each task's "
            "claim compares, YAML files of settings to lay over the tasks."
        ),
    ] = _CLAIMS,
    seeds: Annotated[str, typer.Option(metavar="A-B", help="Seeds of each.")] = "0-9",
    tasks: Annotated[
        str | None, typer.Option(help="Comma-separated names; by default all tasks.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Env steps of a run; by default the task's.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder of runs and results.")] = Path("runs/suite"),
    jobs: Annotated[
        int, typer.Option(min=1, help="Processes that train, a run at a time each.")
    ] = min(2, os.cpu_count() or 1),
    baselines: Annotated[
        str, typer.Option(help="Comma-separated: what is played beside; names or places of code.")
    ] = ",".join(_BASELINES),
    rows: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK=FILE",
            help="Further rows of a task, from an evaluation.json; may be repeated.",
        ),
    ] = None,
    markdown: Markdown = None,
    overrides: Overrides = None,
    mixed_code: Annotated[
        bool, typer.Option("--mixed-code", help="Average seeds that different code trained.")
    ] = False,
) -> int:
    """Train what is missing, play baselines and controls, and write the leaderboard.

    Finished runs are kept, those that were stopped go on, and the rest begin; the same command
    again makes the tables of what is there.
    """
    from agents.commands.train_set import parse_seeds
    from agents.suite.page import as_document, board_of, page_of
    from agents.suite.runs import plan
    from marec_env.io import write_json, write_text
    from marec_env.reporting.page import render_markdown, render_page

    chosen = _chosen(tasks, algorithms)
    files = _files(rows or (), chosen)
    settings = [*(overrides or ()), *([f"training.env_steps={budget}"] if budget else ())]
    plans = plan(chosen, parse_seeds(seeds), settings, output)
    code = _train(plans, jobs)
    if code == INTERRUPTED:
        tell("Stopped; the same command goes on.")
        return code
    names = listed(baselines)
    summaries, controls = {}, {}
    for task in plans:
        summary = _summary(task, names, files.get(task.name, ()), mixed_code)
        if summary is not None:
            summaries[task.name] = summary
            controls[task.name] = _control(task)
    if not summaries:
        tell("error: no run ended well; see the lines above")
        return USER_ERROR
    board = board_of(plans, summaries, controls)
    print_narrow(board.tables(), board.notes)
    title, lead, sections = page_of(board, command_line())
    write_json(output / "suite.json", as_document(board))
    write_text(output / "suite.html", render_page(title, lead, board.notes, sections(drawn=True)))
    written(output / "suite.json", note=", .html")
    if markdown is not None:
        text = render_markdown(title, lead, board.notes, sections(drawn=False))
        write_text(markdown, text)
        written(markdown)
    return code


def _chosen(tasks: str | None, algorithms: str) -> dict[str, dict[str, Algorithm]]:
    """Return the algorithms of each task.

    Raises:
        ConfigError: a task or an algorithm is unknown.
    """
    from agents.suite.algorithms import columns
    from agents.suite.tasks import TASKS

    names = list(TASKS) if tasks is None else [name.strip() for name in tasks.split(",")]
    for name in names:
        if name not in TASKS:
            raise ConfigError(f"--tasks: {unknown_name('task', name, TASKS)}")
    asked = listed(algorithms)
    if not asked:
        raise ConfigError("--algorithms: name at least one")
    found = {}
    for name in dict.fromkeys(names):
        pair = [TASKS[name].worse, TASKS[name].better]
        found[name] = columns([x for one in asked for x in (pair if one == _CLAIMS else [one])])
    return found


def _files(rows: Sequence[str], tasks: Mapping[str, object]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for row in rows:
        task, equals, path = row.partition("=")
        if not equals or task not in tasks:
            raise ConfigError(f"--rows {row}: expected TASK=FILE, TASK one of {', '.join(tasks)}")
        found.setdefault(task, []).append(Path(path))
    return found


def _train(plans: Sequence[TaskRuns], jobs: int) -> int:
    """Train what is not finished, ``jobs`` runs at a time; return the worst exit code."""
    runs = [run for task in plans for run in task.runs]
    todo = [run for run in runs if run.read() is None]
    tell(f"{len(runs) - len(todo)} of {len(runs)} runs are finished")
    # Those that begin with others' networks come last; seeds of one world stay together otherwise.
    todo.sort(key=lambda run: run.begins_with is not None)
    worst = 0
    for later in (False, True):
        part = [run for run in todo if (run.begins_with is not None) == later]
        code = _train_in_turn(part) if jobs == 1 else _train_apart(part, jobs)
        if code == INTERRUPTED:
            return code
        worst = max(worst, code)
    return worst


def _train_in_turn(runs: Sequence[SuiteRun]) -> int:
    worst = 0
    for run in runs:
        code = _train_one(run)
        if code == INTERRUPTED:
            return code
        worst = max(worst, code)
    return worst


def _train_apart(runs: Sequence[SuiteRun], jobs: int) -> int:
    """Train in processes of their own, each of which takes its share of the runs."""
    context = multiprocessing.get_context("spawn")
    shares = [runs[start::jobs] for start in range(min(jobs, len(runs)))]
    workers = [context.Process(target=_work, args=(share,)) for share in shares]

    def stop(number: int, frame: object) -> None:
        for worker in workers:
            if worker.pid is not None and worker.is_alive():
                os.kill(worker.pid, number)

    with on_signals(stop):
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    codes = [128 - c if (c := worker.exitcode or 0) < 0 else c for worker in workers]
    return INTERRUPTED if INTERRUPTED in codes else max(codes, default=0)


def _work(runs: Sequence[SuiteRun]) -> None:
    os.setsid()  # Ctrl-C reaches it once, through the first process
    raise SystemExit(_train_in_turn(runs))


def _train_one(run: SuiteRun) -> int:
    """Begin a run or go on with it, its output in a file beside it; return its exit code."""
    from agents.commands.train import continue_run, start_run
    from agents.runs.environment import evaluation_world, run_world

    log = run.folder.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    began, before = time.monotonic(), 0.0
    try:
        with log.open("a") as text, redirect_stdout(text), redirect_stderr(text):
            for build in (run_world, evaluation_world):  # once for many runs: not this one's time
                build(run.config)
            before = time.process_time()
            if run.begun:
                code = continue_run(run.folder, [])
            else:
                code = start_run(run.preset, run.settings, run.folder, init_from=run.begins_with)
    except MarecError as error:
        tell(f"error: {run.label}: {error}")
        code = USER_ERROR
    if run.begun:
        run.add_seconds(time.process_time() - before)
    state = {0: "done", INTERRUPTED: "stopped"}.get(code, f"failed, see {log}")
    tell(f"{run.label}: {state} ({time.monotonic() - began:.0f} s)")
    return code


def _summary(
    task: TaskRuns, baselines: Sequence[str], files: Sequence[Path], mixed_code: bool
) -> Summary | None:
    """Return a task's runs compared, beside baselines; ``None`` without a finished run."""
    from agents.comparison.summary import summarise

    runs = [found for run in task.runs if (found := run.read()) is not None]
    if not runs:
        return None
    return summarise(runs, [*_played(task, baselines), *files], mixed_code)


def _played(task: TaskRuns, names: Sequence[str]) -> list[Path]:
    """Play the baselines on the task's sessions, unless they were; return the file."""
    from agents.commands.cohort import EvaluationCohort
    from agents.runs.environment import evaluation_world, input_hashes
    from marec_env.errors import RunError
    from marec_env.evaluation.comparison import compare_outcomes
    from marec_env.io import read_json, write_json

    if not names:
        return []
    place, settings = task.folder / "baselines.json", task.config.evaluation
    inside = task.config.evaluated_in
    asked = {
        "environment": inside.model_dump(mode="json"),
        "sessions": settings.sessions,
        "seed": settings.seed,
        "inputs": input_hashes(task.config.model_copy(update={"environment": inside})),
    }
    try:
        known = read_json(place, dict[str, Any])
        if asked.items() <= known.items() and list(known["policies"]) == list(names):
            return [place]
    except (RunError, KeyError):
        pass  # none is there, or none that can be read
    asked_for = settings.model_copy(update={"baselines": tuple(names)})
    outcomes = EvaluationCohort(evaluation_world(task.config), asked_for).outcomes
    found = compare_outcomes(outcomes, tuple(names))
    write_json(place, {**found.as_dict(), **asked})
    tell(f"{task.name}: baselines played")
    return [place]


def _control(task: TaskRuns) -> dict[int, float] | None:
    """Return clicks by seed of the better algorithm's runs under the task's control, which is
    played where it was not; ``None`` if the task has none.
    """
    from agents.commands.shared import open_run
    from agents.runs.environment import evaluation_world
    from agents.studies.headroom import others_field
    from agents.suite.tasks import TASKS
    from marec_env.io import read_json, write_json

    claim, found = TASKS[task.name], {}
    if not claim.shuffled:
        return None
    for run in task.runs:
        if run.algorithm != claim.better or run.read() is None:
            continue
        place, settings = run.folder / f"shuffled-{claim.shuffled}.json", run.config.evaluation
        if not place.is_file():
            world = evaluation_world(run.config)
            team = open_run(run.folder).policy.playing(settings.play == "sampled")
            played = others_field(world, team, claim.shuffled, settings.sessions, settings.seed)
            write_json(place, {"clicks": played.means()["clicks"]})
        found[run.seed] = read_json(place, dict[str, float])["clicks"]
    return found
