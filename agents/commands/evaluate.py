"""``python evaluate.py run RUN...``: a trained team beside baselines, on the same users."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import replace as changed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from agents.commands.shared import Cohort, listed, open_run, print_narrow, written
from marec_env.errors import RunError, visible

if TYPE_CHECKING:
    from agents.commands.cohort import BaselineCohort
    from marec_env.evaluation.comparison import Evaluation
    from marec_env.evaluation.policies import Policy

_GREEDY = "greedy"  # what evaluations that do not say are of
_LONGEST = 60  # characters of a file's name that tell the baselines
_PRIVILEGED = (
    "(p) privileged: reads the users' hidden state; F of slate policies counts neutral component "
    "objectives"
)


def command(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    baselines: Annotated[
        str | None, typer.Option(help="Comma-separated names; by default those of the run.")
    ] = None,
    sessions: Annotated[
        int | None, typer.Option(min=2, help="Sessions; by default those of the run.")
    ] = None,
    seed: Cohort = None,
    play: Annotated[
        Literal["greedy", "sampled"] | None,
        typer.Option(help="How the teams play; by default as the run says (evaluation.play)."),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="Comma-separated reward terms to report (evaluation.metrics)."),
    ] = None,
    best: Annotated[
        bool,
        typer.Option("--best", help="The best checkpoint (evaluation.every), not the newest."),
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:i; by default that of training.")
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Put it in the place of an evaluation of other settings."),
    ] = False,
) -> None:
    """Evaluate trained teams beside baselines on the same users; write evaluation.json, .csv,
    report.html.

    A run's evaluation.json is replaced by one of the same sessions, seed and baselines only; others
    are written beside it, for example as evaluation-8sessions.json.
    """
    from agents.commands.cohort import cohort_of

    names = {"baselines": baselines, "metrics": metrics}
    given: dict[str, Any] = {k: listed(text) for k, text in names.items() if text is not None}
    others = {"sessions": sessions, "seed": seed, "play": play}
    given |= {key: value for key, value in others.items() if value is not None}
    with TemporaryDirectory() as shared:  # baselines play once for runs that meet the same sessions
        for path in runs:
            run = changed(open_run(path, device), best=best)
            policy, steps = run.policy, run.newest().progress.env_steps
            settings = run.config.evaluation.model_copy(update=given)
            cohort = cohort_of(run.config, settings, Path(shared))
            _, places = evaluate_run(path, cohort, policy, steps, replace=replace, best=best)
            if places[0] != (known := path / "evaluation.json"):
                typer.echo(
                    f"{visible(str(known))} is of another checkpoint, other sessions or baselines "
                    "and stays as it is; --replace puts this evaluation in its place"
                )
            written(*places)


def evaluate_run(
    folder: Path, cohort: BaselineCohort, policy: Policy, env_steps: int, *, replace: bool,
    best: bool = False, quiet: bool = False, page: bool = True,
) -> tuple[Evaluation, tuple[Path, ...]]:  # fmt: skip
    """Roll out a trained policy beside the baselines; write what came of it into the run's folder,
    print it unless ``quiet``, draw its page if asked to, and return it with its files' places.
    """
    from agents.comparison.runs import TRAINED
    from marec_env.evaluation.comparison import compare_outcomes

    outcomes = {TRAINED: cohort.play(policy), **cohort.outcomes}
    found = compare_outcomes(outcomes, tuple(cohort.outcomes))
    found = found.model_copy(update={"play": cohort.settings.play})
    places = write_comparison(
        found, folder, env_steps=env_steps, replace=replace, best=best, page=page
    )
    if not quiet:
        _print_evaluation(folder, places[0].name)
    return found, places


def write_comparison(
    comparison: Evaluation, folder: Path, *, env_steps: int, replace: bool = False,
    best: bool = False, page: bool = True,
) -> tuple[Path, ...]:  # fmt: skip
    """Write an evaluation, its table and, if asked to, its page into a run's folder; return their
    places.

    An ``evaluation.json`` of other sessions, seed or baselines is replaced if asked for; otherwise
    the files get names of their own.
    """
    from agents.comparison.report import write_run_report
    from agents.runs.manifest import CodeVersion
    from marec_env.io import write_json, write_text

    content = comparison.as_dict()
    suffix = "" if replace else _suffix(content, folder / "evaluation.json")
    if best and not replace:
        suffix = f"-best{suffix}"
    places = folder / f"evaluation{suffix}.json", folder / f"evaluation{suffix}.csv"
    code = asdict(CodeVersion.here())
    write_json(places[0], {**content, "env_steps": env_steps, "git": code})
    write_text(places[1], comparison.as_csv())
    return (*places, write_run_report(folder, suffix)) if page else places


def _suffix(content: Mapping[str, Any], known: Path) -> str:
    """Return what tells an evaluation from the one that is there; empty if nothing does."""
    from agents.comparison.runs import TRAINED
    from marec_env.io import read_json

    try:
        before = read_json(known, dict[str, Any])
        names = sorted(set(before["policies"]) - {TRAINED})
        sessions, seed, play = before["sessions"], before["seed"], before.get("play", _GREEDY)
    except (RunError, KeyError, TypeError):
        return ""  # none is there, or none that can be read
    parts = []
    if content["sessions"] != sessions:
        parts.append(f"{content['sessions']}sessions")
    if content["seed"] != seed:
        parts.append(f"seed{content['seed']}")
    if (ours := content.get("play", _GREEDY)) != play:
        parts.append(ours)
    beside = sorted(set(content["policies"]) - {TRAINED})
    if beside != names:
        told = re.sub(r"[^A-Za-z0-9_+.]", "_", "+".join(beside)) or "no_baselines"
        if len(told) > _LONGEST:
            told = f"{len(beside)}baselines_{hashlib.sha256(told.encode()).hexdigest()[:8]}"
        parts.append(told)
    return "".join(f"-{part}" for part in parts)


def _print_evaluation(folder: Path, evaluation: str = "evaluation.json") -> None:
    """Print what a run's page says of its evaluation: outcomes, ranking metrics, differences to the
    best baseline, objectives, reward terms.
    """
    from agents.comparison import tables
    from agents.comparison.runs import TRAINED, read_run
    from agents.comparison.summary import summarise

    summary = summarise([changed(read_run(folder, evaluation), defects=())], label=TRAINED)
    wanted = (
        tables.outcomes_table,
        tables.quality_table,
        tables.difference_table,
        tables.further_table,
        tables.objectives_table,
        tables.agents_table,
        tables.terms_table,
    )
    notes = [*summary.notes, *([_PRIVILEGED] if summary.users else [])]
    print_narrow([table(summary) for table in wanted], notes)
