"""Train a recommender team: ``python train.py CONFIG.yaml [--set a.b=v ...] [--seeds 0-9]``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from agents.entry import FLAG, allow_plugins, run_command
from marec_env.errors import ConfigError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def train(
    config: Annotated[
        str | None, typer.Argument(help="YAML file, for example configs/default.yaml.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key; may be repeated."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Continue the run in this folder.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run's folder; must be new or empty.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="A-B", help="Train several seeds, for example 0-9.")
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Seeds trained at once, each in a process with one thread.")
    ] = min(2, os.cpu_count() or 1),
    group: Annotated[str | None, typer.Option(help="Group in the dashboards.")] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Begin with the networks of this run's last checkpoint."),
    ] = None,
    plugins: Annotated[
        bool,
        typer.Option(FLAG, help="Let a file outside this folder name code to run."),
    ] = False,
) -> None:
    """Train a team, compare it with the baselines, and print the run's folder."""
    if plugins:
        allow_plugins()
    raise typer.Exit(
        run_command(
            lambda: _train(config, overrides or [], resume, run_dir, seeds, jobs, group, init_from)
        )
    )


def _train(
    config: str | None,
    overrides: list[str],
    resume: Path | None,
    run_dir: Path | None,
    seeds: str | None,
    jobs: int,
    group: str | None,
    init_from: Path | None,
) -> int:
    if resume is not None:
        if any(x is not None for x in (config, run_dir, seeds, init_from)):
            raise ConfigError("--resume takes its configuration from the run; leave the others out")
        from agents.commands.train import continue_run

        return continue_run(resume, overrides)
    if config is None:
        raise ConfigError("name a configuration, for example: python train.py configs/default.yaml")
    if seeds is not None:
        if run_dir is not None:
            raise ConfigError("--seeds makes a folder a seed; set output=DIR instead of --run-dir")
        if init_from is not None:
            raise ConfigError("--init-from is for one run; start each seed by itself")
        from agents.commands.train import start_seeds

        return start_seeds(config, seeds, overrides, jobs, group)
    from agents.commands.train import start_run

    return start_run(config, overrides, run_dir, group, init_from)


if __name__ == "__main__":
    app()
