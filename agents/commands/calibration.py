"""``python evaluate.py calibration CONFIG``: how closely the simulated users follow their log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marec_env.reporting.table import print_tables

__all__ = ["command"]


def command(
    config: Annotated[Path, typer.Argument(help="YAML file of a run, e.g. configs/default.yaml.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="section.key=value; may be repeated.", metavar="KEY=VALUE"),
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Folder for calibration.json and calibration.html.")
    ] = Path("calibration"),
    sessions: Annotated[int, typer.Option(min=2, help="Simulated sessions a batch.")] = 1024,
) -> None:
    """Compare simulated users with their log: held-out click model, rates, distributions."""
    # Heavy imports wait until the command is run, so that --help is quick.
    from agents.config import RunConfig
    from agents.studies.calibration.page import render_page
    from agents.studies.calibration.report import calibrate
    from agents.studies.calibration.tables import tables_of
    from marec_env.config.loader import load
    from marec_env.environment_config import EnvironmentConfig
    from marec_env.errors import ConfigError
    from marec_env.io import write_json, write_text
    from marec_env.users import make_users
    from marec_env.world import build_world

    run = load(config, RunConfig, overrides or [])
    if not isinstance(run.environment, EnvironmentConfig):
        raise ConfigError(f"{config}: environment.kind must be 'marec': only it has a log")
    # The report runs on the CPU whatever the run's device: its tensors are small.
    environment = run.environment.model_copy(update={"device": "cpu"})
    world = build_world(environment)
    report = calibrate(
        world.log,
        world.catalog,
        environment.population,
        make_users(environment.users, world.population, sessions),
        source=environment.data.source,
        slate_size=environment.pipeline.slate_size,
        max_requests=environment.max_requests,
        seed=run.seed,
    )
    write_json(output / "calibration.json", report.as_dict())
    write_text(output / "calibration.html", render_page(report))
    print_tables(tables_of(report))
    typer.echo(f"written: {output / 'calibration.json'}, {output / 'calibration.html'}")
