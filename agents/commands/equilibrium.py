"""``python evaluate.py equilibrium RUN...``: how close play is to equilibrium and optimum."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from agents.commands.shared import (
    Overrides,
    Replace,
    claim,
    command_line,
    open_runs,
    read_environment,
    tell,
    written,
)
from marec_env.errors import ConfigError
from marec_env.reporting.table import print_tables

if TYPE_CHECKING:
    from agents.studies.equilibrium.common import Finding

N = TypeVar("N", int, float)


def command(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders; several are compared and swapped.")
    ] = None,
    game: Annotated[
        list[str] | None,
        typer.Option(
            "--game",
            metavar="NAME[:K]",
            help="Solve a matrix game with a known answer instead: penalty:-25, climbing, chicken, "
            "prisoners-dilemma, matching-pennies; may be repeated.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML of an environment, to study without a run.")
    ] = None,
    overrides: Overrides = None,
    parts: Annotated[
        str,
        typer.Option(
            help="Comma-separated: exploitability, course, credit, swaps, matrix, anarchy, or all. "
            "The last takes hours at its default budgets."
        ),
    ] = "exploitability,course,credit,swaps",
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder of equilibrium.json and .html; by default 'equilibrium' in the first "
            "run's folder, or here."
        ),
    ] = None,
    replace: Replace = False,
    budget: Annotated[int, typer.Option(min=2, help="Evaluations of each search.")] = 96,
    seeds: Annotated[int, typer.Option(min=1, help="Search seeds and response seeds.")] = 3,
    sessions: Annotated[int, typer.Option(min=2, help="Sessions that searches see.")] = 64,
    held_out: Annotated[
        int, typer.Option(min=2, help="Other sessions, on which all is judged.")
    ] = 256,
    response_steps: Annotated[
        int, typer.Option(min=0, help="Env steps of each trained best response; 0 trains none.")
    ] = 100_000,
    response_start: Annotated[
        Literal["current", "fresh"],
        typer.Option(help="current: responses start as what is played; fresh: untrained."),
    ] = "current",
    checkpoints: Annotated[
        int, typer.Option(min=1, help="Checkpoints that show the course of training.")
    ] = 5,
    widths: Annotated[str, typer.Option(help="Funnel widths of part anarchy.")] = "20,50,100,200",
    mixing: Annotated[
        str, typer.Option(help="Shares λ of the own objective in part anarchy.")
    ] = "0,0.25,0.5,0.75,1",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of best responses at most.")] = 8,
    starts: Annotated[
        int,
        typer.Option(
            min=1, help="Starts of best responses: hand-set play, the joint optimum, random play."
        ),
    ] = 2,
    per: Annotated[
        Literal["request", "session"],
        typer.Option(
            help="Own objectives in part anarchy: averaged a request, or summed over the session, "
            "which pays every component for keeping the user."
        ),
    ] = "request",
) -> None:
    """Measure exploitability, price of anarchy, credit and swaps; solve the payoff game."""
    from agents.studies.equilibrium.common import Settings
    from agents.studies.equilibrium.study import REPORT, Study, checked_parts, write_report

    if game:
        _solve_games(game, output, replace)
        return
    own_shares = _numbers("--mixing", mixing, float)
    if not all(0.0 <= share <= 1.0 for share in own_shares):
        raise ConfigError(f"--mixing '{mixing}' holds shares outside 0 ... 1")
    settings = Settings(
        train_sessions=sessions,
        held_out_sessions=held_out,
        budget=budget,
        seeds=seeds,
        response_steps=response_steps,
        response_start=response_start,
        checkpoints=checkpoints,
        widths=_numbers("--widths", widths, int),
        own_shares=own_shares,
        rounds=rounds,
        starts=starts,
        per=per,
    )
    wanted = checked_parts(parts)
    if runs and config is not None:
        raise ConfigError("give runs or --config, not both: a run has its configuration")
    if runs and overrides:
        raise ConfigError("--set goes with --config; a run keeps its configuration")
    if not runs and config is None:
        raise ConfigError("name a run, or --config CONFIG.yaml, or --game penalty:-25")
    folder = output or (runs[0] if runs else Path()) / "equilibrium"
    if not runs or runs[0].is_dir():  # else told below that it is no run
        claim(*(folder / name for name in REPORT), replace=replace)
    opened = open_runs(runs or [])
    whole = (
        next(iter(opened.values())).config
        if config is None
        else read_environment(config, overrides)[0]
    )
    study = Study(whole, opened, settings, tell)
    done: dict[str, Finding] = {}
    for name in wanted:
        tell(f"{name} ...")
        for found in study.part(name):
            # Written as often as there is news: a long study that is stopped keeps what it has.
            done[name] = found
            places = write_report(folder, "Equilibrium analysis", command_line(), settings, done)
        if name not in done:
            needed = "two runs" if name == "swaps" else "a run"
            tell(f"{name}: left out, it needs {needed}")
            continue
        section = done[name].section
        print_tables(section.tables)
        for warning in section.notes:
            tell(f"warning: {warning}")
    if not done:
        raise ConfigError(f"nothing to do: --parts {parts} needs runs; name some")
    written(*places)


def _numbers(option: str, text: str, kind: type[N]) -> tuple[N, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"{option} '{text}' is not a list of numbers such as 20,50") from error


def _solve_games(names: list[str], output: Path | None, replace: bool) -> None:
    """Print, and write if a folder is given, the solutions of matrix games."""
    from agents.studies.equilibrium.common import Finding
    from agents.studies.equilibrium.normal_form import game_record, game_tables, matrix_game
    from agents.studies.equilibrium.study import REPORT, write_report
    from marec_env.reporting.page import Section

    games = {name: matrix_game(name) for name in names}
    if output is not None:
        claim(*(output / name for name in REPORT), replace=replace)
    found = {}
    for name, game in games.items():
        record = game_record(game)
        tables = game_tables(name, record)
        print_tables(tables)
        found[name.replace(":", "-")] = Finding(record, Section(name, tables))
    if output is not None:
        written(*write_report(output, "Matrix games", command_line(), None, found))
