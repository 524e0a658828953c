"""What the commands of the laboratory share: inputs and places of results, checked before work."""

from __future__ import annotations

import shlex
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agents.config import RunConfig
    from agents.runs.trained import TrainedRun
    from marec_env.environment_config import EnvironmentConfig

__all__ = [
    "Overrides",
    "Overwrite",
    "claim",
    "command_line",
    "open_runs",
    "read_environment",
    "tell",
]

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="section.key=value; may be repeated.", metavar="KEY=VALUE"),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace earlier results.")]


def claim(*places: Path | None, overwrite: bool) -> None:
    """Refuse places of results that hold earlier ones, or that cannot be written.

    Args:
        places: of files that will be written; ``None`` is none.
        overwrite: whether earlier results may go.

    Raises:
        RunError: the first place that is refused, and what to do about it.
    """
    from marec_env.errors import RunError

    for place in places:
        if place is None:
            continue
        if place.is_dir():
            raise RunError(f"{place} is a folder; name a file to write")
        if place.exists() and not overwrite:
            made = datetime.fromtimestamp(place.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
            raise RunError(
                f"{place} holds results of {made}; write elsewhere (--output), or add --overwrite"
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
    from marec_env.errors import ConfigError

    run = load(config, RunConfig, overrides or [])
    if not isinstance(run.environment, EnvironmentConfig):
        raise ConfigError(f"{config}: environment.kind must be 'marec' for this command")
    return run, run.environment


def open_runs(paths: list[Path]) -> list[TrainedRun]:
    """Return trained runs on marec's environment.

    Says so if an environment does not come out here as it did where the run was trained.

    Raises:
        RunError: a folder is no run's, or has no undamaged checkpoint.
        ConfigError: a run is on another environment, or its learner cannot be read back.
    """
    from agents.runs.trained import load_run

    runs = [load_run(path, tell) for path in paths]
    for run in runs:
        _ = run.environment, run.policy  # refused now, before any work
    for run in runs:
        for name in run.changed_inputs():
            tell(f"warning: {run.folder.path} was trained on other {name} than are here")
    return runs


def tell(line: str) -> None:
    """Print a line of progress or a warning on stderr; what is in names cannot act there."""
    from marec_env.errors import visible

    typer.echo(visible(line), err=True)


def command_line() -> str:
    """Return the command as it was given, for reports."""
    return f"python evaluate.py {shlex.join(sys.argv[1:])}"
