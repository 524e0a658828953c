"""``python evaluate.py run RUN...``: a trained team beside baselines, on the same users."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marec_env.reporting.table import TextTable, print_tables, table_console

if TYPE_CHECKING:
    from rich.console import Console

    from agents.config import RunConfig
    from marec_env.environment_config import EnvironmentConfig
    from marec_env.evaluation.comparison import Comparison
    from marec_env.evaluation.policies import Policy
    from marec_env.world import World

__all__ = [
    "command",
    "evaluate_policy",
    "evaluate_run",
    "load_run_policy",
    "print_comparison",
    "write_comparison",
]

_COLUMNS = {
    "return": "F",
    "clicks": "clicks",
    "length": "requests",
    "satisfaction": "satisf.",
    "precision": "prec.",
    "recall": "recall",
    "f1": "F1",
    "ndcg": "NDCG",
}
"""Outcomes of the first table and their headings, short enough for 100 columns."""


def command(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    baselines: Annotated[
        str | None, typer.Option(help="Comma-separated names; by default those of the run.")
    ] = None,
    sessions: Annotated[
        int | None, typer.Option(min=2, help="Sessions; by default those of the run.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the sessions; by default that of the run.")
    ] = None,
) -> None:
    """Evaluate trained teams beside baselines on the same users; write evaluation.json, .csv,
    report.html.
    """
    names = None if baselines is None else tuple(n.strip() for n in baselines.split(",") if n)
    for path in runs:
        comparison = evaluate_run(path, names, sessions, seed)
        written = write_comparison(comparison, path)
        print_comparison(comparison, table_console())
        typer.echo(f"written: {', '.join(str(file) for file in written)}")


def evaluate_run(
    path: Path,
    baselines: Sequence[str] | None = None,
    sessions: int | None = None,
    seed: int | None = None,
) -> Comparison:
    """Evaluate the newest checkpoint of a run; what is not given is as its configuration says.

    Raises:
        RunError: the folder is no run's, or has no undamaged checkpoint.
        ConfigError: the run is not on the marec environment, or a baseline is unknown.
    """
    from marec_env.world import build_world

    config, environment, policy = load_run_policy(path)
    settings = config.evaluation
    return evaluate_policy(
        build_world(environment),
        policy,
        settings.baselines if baselines is None else baselines,
        settings.sessions if sessions is None else sessions,
        settings.seed if seed is None else seed,
    )


def load_run_policy(path: Path) -> tuple[RunConfig, EnvironmentConfig, Policy]:
    """Return a run's configuration, its environment, and the policy of its newest checkpoint.

    Says so if the environment does not come out here as it did where the run was trained.

    Raises:
        RunError: the folder is no run's, or has no undamaged checkpoint.
        ConfigError: the run is not on the marec environment.
    """
    from agents.runs.trained import load_run

    run = load_run(path, typer.echo)
    found = run.config, run.environment, run.policy
    for name in run.changed_inputs():
        typer.echo(f"warning: {path} was trained on other {name} than are here", err=True)
    return found


def evaluate_policy(
    world: World,
    policy: Policy | None,
    baselines: Sequence[str],
    sessions: int,
    seed: int,
) -> Comparison:
    """Roll out a policy (if any) and baselines on the same sessions.

    Raises:
        ConfigError: a baseline is unknown.
    """
    from agents.baselines import BASELINES, build_baseline
    from agents.comparison.runs import TRAINED
    from marec_env.evaluation.comparison import compare_outcomes
    from marec_env.evaluation.rollout import rollout
    from marec_env.simulator import Simulator

    for name in baselines:
        BASELINES.get(name)  # an unknown name is told before anything is computed
    simulator = Simulator(world, 1, autoreset=False)
    policies: dict[str, Policy] = {} if policy is None else {TRAINED: policy}
    policies |= {name: build_baseline(name, simulator) for name in baselines}
    outcomes = {name: rollout(world, p, sessions, seed) for name, p in policies.items()}
    privileged = {name: bool(getattr(p, "privileged", False)) for name, p in policies.items()}
    return compare_outcomes(outcomes, privileged, tuple(baselines))


def write_comparison(comparison: Comparison, folder: Path) -> tuple[Path, ...]:
    """Write a run's ``evaluation.json``, ``evaluation.csv`` and page; return their places."""
    from agents.comparison.report import write_run_report
    from agents.runs.manifest import code_state
    from marec_env.io import write_json, write_text

    places = folder / "evaluation.json", folder / "evaluation.csv"
    write_json(places[0], {**comparison.as_dict(), "git": code_state()})
    write_text(places[1], comparison.as_csv())
    return *places, write_run_report(folder)


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print outcomes with intervals, differences to the best baseline, objectives and coverage."""
    tables = [
        _outcomes_table(comparison),
        _gaps_table(comparison),
        _user_outcomes_table(comparison),
        _objectives_table(comparison),
    ]
    print_tables([table for table in tables if table is not None], console)


def _outcomes_table(comparison: Comparison) -> TextTable:
    first = next(iter(comparison.outcomes.values()))
    return TextTable(
        f"{first.sessions.numel()} sessions, the same for all; mean ± half the 95 % interval",
        ["policy", *_COLUMNS.values()],
        [
            [_label(comparison, name), *(_cell(comparison, name, m) for m in _COLUMNS)]
            for name in comparison.outcomes
        ],
        (
            "(p) privileged: reads the users' hidden state; F of slate policies counts neutral "
            "component objectives",
        ),
    )


def _gaps_table(comparison: Comparison) -> TextTable:
    return TextTable(
        f"Paired difference to {comparison.reference}, the best baseline by clicks "
        "(* zero lies outside the 95 % interval)",
        ["policy", *_COLUMNS.values()],
        [
            [_label(comparison, name), *(_gap(comparison, name, m) for m in _COLUMNS)]
            for name in comparison.outcomes
            if name != comparison.reference
        ],
    )


def _user_outcomes_table(comparison: Comparison) -> TextTable | None:
    """Return what the scenario's users bring beside clicks: revenue, minutes watched, shares ..."""
    from marec_env.users.base import USER_OUTCOMES

    there = set(comparison.metric_names())
    names = [name for name in USER_OUTCOMES if name in there]
    if not names:
        return None
    return TextTable(
        "Users' outcomes a session",
        ["policy", *(name.replace("_", " ") for name in names)],
        [
            [_label(comparison, policy), *(_cell(comparison, policy, name) for name in names)]
            for policy in comparison.outcomes
        ],
    )


def _objectives_table(comparison: Comparison) -> TextTable:
    objectives = [m for m in comparison.metric_names() if m.startswith("objective/")]
    rows = []
    for name in comparison.outcomes:
        cohort = comparison.cohort(name)
        rows.append(
            [
                _label(comparison, name),
                *(_cell(comparison, name, metric) for metric in objectives),
                f"{cohort['coverage']:.3f}",
                f"{cohort['gini']:.3f}",
            ]
        )
    names = [metric.removeprefix("objective/") for metric in objectives]
    header = ["policy", *names, "coverage", "Gini"]
    return TextTable("Objectives f_i a request, and the cohort", header, rows)


def _label(comparison: Comparison, name: str) -> str:
    return f"{name} (p)" if comparison.privileged[name] else name


def _digits(value: float) -> int:
    return 1 if abs(value) >= 10 else 3


def _cell(comparison: Comparison, name: str, metric: str) -> str:
    estimate = comparison.estimate(name, metric)
    if estimate is None or estimate.count == 0:
        return "-"
    digits = _digits(estimate.value)
    return f"{estimate.value:.{digits}f}\n±{(estimate.high - estimate.low) / 2:.{digits}f}"


def _gap(comparison: Comparison, name: str, metric: str) -> str:
    paired = comparison.difference(name, metric)
    if paired is None or paired.difference.count == 0:
        return "-"
    gap = paired.difference
    mark = "*" if paired.significant else ""
    digits = _digits(gap.value)
    return f"{gap.value:+.{digits}f}{mark}\n±{(gap.high - gap.low) / 2:.{digits}f}"
