"""``python evaluate.py game CONFIG``: how much there is to gain, from random to oracle play."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from marec_env.reporting.table import TextTable, print_tables, table_console

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
    seeds: Annotated[int, typer.Option(min=1, help="Searches for clicks, and as many for F.")] = 3,
    sessions: Annotated[int, typer.Option(min=2, help="Held-out sessions.")] = 1024,
    cohort: Annotated[int, typer.Option(min=0, help="Their seed.")] = 1_000_003,
    output: Annotated[Path, typer.Option(help="The report, as JSON.")] = Path("game.json"),
    markdown: Annotated[
        Path | None, typer.Option(help="Also write the tables as Markdown into this file.")
    ] = None,
) -> None:
    """Measure random, hand-set and searched static play, the oracles, trained runs and controls.

    The controls of a run are its team shown other sessions' observations (shuffled), and its mean
    action in every request (frozen): if they do as well, what it observed was of no use.
    """
    from agents.commands.evaluate import load_run_policy
    from agents.config import RunConfig
    from agents.runs.environment import input_hashes
    from agents.studies.headroom.levels import LevelsPlan, measure_levels
    from marec_env.config.loader import load
    from marec_env.environment_config import EnvironmentConfig
    from marec_env.errors import ConfigError
    from marec_env.io import write_json, write_text
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
    report["inputs"] = input_hashes(run)
    write_json(output, report)
    _print(report)
    typer.echo(f"written: {output}")
    if markdown is not None:
        write_text(markdown, _markdown(report, f"python evaluate.py {' '.join(sys.argv[1:])}"))
        typer.echo(f"written: {markdown}")


def _print(report: dict[str, Any]) -> None:
    console = table_console()
    print_tables([_table(report)], console)
    for line in _sentences(report):
        console.print(line, highlight=False)


def _table(report: dict[str, Any]) -> TextTable:
    measures = ("F", "clicks", "requests", "satisfaction")
    header = ["policy", *(f"{name} ± s.e." for name in measures), "env steps of the search"]
    rows = []
    for policy, row in report["levels"].items():
        cells = [f"{v['mean']:.2f} ± {v['standard_error']:.2f}" for v in row.values()]
        steps = report["search_env_steps"].get(policy)
        rows.append([policy, *cells, f"{steps:,}" if steps else ""])
    return TextTable(f"{report['plan']['sessions']} sessions, the same for all", header, rows)


def _sentences(report: dict[str, Any]) -> list[str]:
    from agents.studies.headroom.levels import CRITERIA

    lines = []
    for row in report["differences"]:
        relative = "" if row["relative"] is None else f"{row['relative']:+.1%}, "
        line = (
            f"{CRITERIA[row['criterion']]} of {row['of']} over {row['minus']}: "
            f"{row['mean']:+.2f} ± {row['standard_error']:.2f} "
            f"({relative}{row['standard_errors']:.1f} standard errors)"
        )
        over = row.get("over_teams")
        if over is not None:
            line += f"; over training seeds {over['mean']:+.2f} ± {over['standard_error']:.2f}"
        lines.append(line)
    return lines


def _markdown(report: dict[str, Any], command: str) -> str:
    plan = report["plan"]
    lines = [
        "# What there is to gain",
        "",
        f"Made by `{command}`; mean ± one standard error over {plan['sessions']:,} held-out "
        "sessions, the same for all.",
        "",
        _table(report).as_markdown(),
        *(f"* {line}" for line in _sentences(report)),
    ]
    return "\n".join(lines) + "\n"
