"""What the commands share: options, inputs and places of results, checked before work."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace as changed
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agents.entry import Overrides
from marec_env.config import MAX_SEED
from marec_env.errors import ConfigError, RunError, visible
from marec_env.reporting.table import TextTable, print_tables, table_console
from marec_env.shipped import typed

if TYPE_CHECKING:
    from agents.config import RunConfig
    from agents.runs.trained import TrainedRun
    from marec_env.environment_config import EnvironmentConfig

__all__ = [
    "Cohort",
    "ConfigFile",
    "Markdown",
    "Overrides",
    "Replace",
    "claim",
    "command_line",
    "listed",
    "open_run",
    "open_runs",
    "print_narrow",
    "read_environment",
    "tell",
    "written",
]

Replace = Annotated[bool, typer.Option("--replace", help="Replace earlier results.")]
ConfigFile = Annotated[
    Path, typer.Argument(help="YAML file of a run or preset, e.g. configs/default.yaml or quick.")
]
Cohort = Annotated[
    int | None,
    typer.Option(min=0, max=MAX_SEED, help="Seed of the sessions; by default that of the run."),
]
Markdown = Annotated[
    Path | None, typer.Option(help="Also write the tables as Markdown into this file.")
]


def listed(text: str) -> list[str]:
    """Return the names of a comma-separated option, in order."""
    return [name for part in text.split(",") if (name := part.strip())]


_ON_THE_PAGE = ("stayed", "MRR")  # columns that a terminal has no room for


def claim(*places: Path | None, replace: bool) -> None:
    """Refuse places of results that hold earlier ones, unless those may be replaced, or that cannot
    be written.

    Raises:
        RunError: the first place that is refused, and what to do about it.
    """
    for place in places:
        if place is None:
            continue
        if place.is_dir():
            raise RunError(f"{place} is a folder; name a file to write")
        if place.exists() and not replace:
            made = datetime.fromtimestamp(place.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
            raise RunError(
                f"{place} holds results of {made}; write elsewhere (--output), or add --replace"
            )
        there = next(folder for folder in place.parents if folder.exists())
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            raise RunError(f"cannot write {place}: {error.strerror or error}: {there}") from error


def read_environment(
    config: Path, overrides: list[str] | None
) -> tuple[RunConfig, EnvironmentConfig]:
    """Return a run's configuration and its environment.

    Raises:
        ConfigError: it cannot be read, or the environment is not marec's own.
    """
    from agents.config import RunConfig
    from marec_env.config.loader import load
    from marec_env.environment_config import EnvironmentConfig

    run = load(config, RunConfig, overrides or [])
    if not isinstance(run.environment, EnvironmentConfig):
        raise ConfigError(f"{config}: environment.kind must be 'marec' for this command")
    return run, run.environment


def open_run(path: Path, device: str | None = None) -> TrainedRun:
    """Return a run; say so if its environment does not come out here as where it was trained.

    Raises:
        RunError, ConfigError: see :func:`agents.runs.trained.load_run`.
    """
    from agents.runs.trained import load_run

    run = load_run(path, tell, device)
    for name in run.changed_inputs():
        tell(f"warning: {path} was trained on other {name} than are here")
    return run


def open_runs(paths: Sequence[Path]) -> dict[str, TrainedRun]:
    """Return trained runs on marec's environment by name: the folder's, its path if two share it.

    Raises:
        RunError: a folder is no run's, is given twice, or has no undamaged checkpoint.
        ConfigError: a run is on another environment, or its learner cannot be read back.
    """
    runs = [open_run(path) for path in paths]
    names = [run.name for run in runs]
    named: dict[str, TrainedRun] = {}
    for path, run in zip(paths, runs, strict=True):
        _ = run.environment, run.policy  # refused now, before any work
        name = run.name if names.count(run.name) == 1 else str(path)
        if name in named:
            raise RunError(f"{path} is given twice")
        named[name] = run
    return named


def tell(line: str) -> None:
    """Print a line of progress or a warning on stderr; what is in names cannot act there."""
    typer.echo(visible(line), err=True)


def written(*places: Path, note: str = "") -> None:
    """Tell where results lie."""
    typer.echo(visible(f"written: {', '.join(map(str, places))}{note}"))


def print_narrow(tables: Sequence[TextTable | None], notes: Sequence[str]) -> None:
    """Print tables of a comparison without what only its page has room for, and notes on it."""
    console = table_console()
    for table in filter(None, tables):
        kept = [place for place, cell in enumerate(table.header) if cell not in _ON_THE_PAGE]
        header, *rows = ([row[place] for place in kept] for row in (table.header, *table.rows))
        print_tables([changed(table, header=header, rows=rows)], console)
    for note in notes:
        console.print(f"note: {note}", style="yellow", markup=False, highlight=False)


def command_line() -> str:
    """Return the command as it was given, for reports."""
    program = "python evaluate.py" if typed("compare") != "marec compare" else "marec"
    return f"{program} {shlex.join(sys.argv[1:])}"
