"""``python evaluate.py game CONFIG``: how much there is to gain, from random to oracle play."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["command"]


def command(
    config: Annotated[Path, typer.Argument(help="YAML file of a run, e.g. configs/default.yaml.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="section.key=value; may be repeated.", metavar="KEY=VALUE"),
    ] = None,
    runs: Annotated[
        list[Path] | None, typer.Option("--run", help="Trained run to place; may be repeated.")
    ] = None,
    budget: Annotated[int, typer.Option(min=2, help="Static decisions tried per search.")] = 192,
    search_sessions: Annotated[int, typer.Option(min=2, help="Sessions of each try.")] = 256,
    seeds: Annotated[int, typer.Option(min=1, help="Searches, with seeds 0, 1, ...")] = 3,
    sessions: Annotated[int, typer.Option(min=2, help="Held-out sessions.")] = 1024,
    cohort: Annotated[int, typer.Option(min=0, help="Their seed.")] = 1_000_003,
    output: Annotated[Path, typer.Option(help="The report, as JSON.")] = Path("game.json"),
) -> None:
    """Measure random, hand-set and searched static play, the oracles, trained runs and controls.

    The controls of a run are its team shown other sessions' observations (shuffled), and its mean
    action in every request (frozen): if they do as well, what it observed was of no use.
    """
    from agents.commands.evaluate import load_run_policy
    from agents.config import RunConfig
    from agents.headroom.levels import LevelsPlan, measure_levels
    from marec_env.config.loader import load
    from marec_env.environment_config import EnvironmentConfig
    from marec_env.errors import ConfigError
    from marec_env.io import write_json
    from marec_env.world import build_world

    run = load(config, RunConfig, overrides or [])
    if not isinstance(run.environment, EnvironmentConfig):
        raise ConfigError(f"{config}: environment.kind must be 'marec' for this report")
    plan = LevelsPlan(
        search_budget=budget,
        search_sessions=search_sessions,
        search_seeds=tuple(range(seeds)),
        search_cohort=cohort + 1,
        sessions=sessions,
        cohort=cohort,
    )
    trained = {f"trained: {path.name}": load_run_policy(path)[2] for path in runs or []}
    report = measure_levels(build_world(run.environment), plan, trained)
    write_json(output, report)
    _print(report)
    typer.echo(f"written: {output}")


def _print(report: dict[str, Any]) -> None:
    from rich.table import Table

    from agents.commands.console import table_console

    console = table_console()
    levels = Table(title=f"{report['plan']['sessions']} sessions, the same for all")
    levels.add_column("policy")
    for name in ("F", "clicks", "requests", "satisfaction"):
        levels.add_column(f"{name} ± s.e.", justify="right")
    levels.add_column("search env steps", justify="right")
    for policy, row in report["levels"].items():
        cells = [f"{v['mean']:.2f} ± {v['standard_error']:.2f}" for v in row.values()]
        steps = report["search_env_steps"].get(policy)
        levels.add_row(policy, *cells, f"{steps:,}" if steps else "")
    console.print(levels)
    for row in report["differences"]:
        console.print(
            f"clicks of {row['of']} over {row['minus']}: {row['mean']:+.2f} ± "
            f"{row['standard_error']:.2f} ({row['relative']:+.1%}, "
            f"{row['standard_errors']:.1f} standard errors)",
            highlight=False,
        )
