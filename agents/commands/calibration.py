"""``python evaluate.py calibration CONFIG``: how closely the simulated users follow their log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agents.commands.shared import ConfigFile, Overrides, claim, read_environment, written
from marec_env.reporting.table import print_tables

__all__ = ["command"]


def command(
    config: ConfigFile,
    overrides: Overrides = None,
    output: Annotated[
        Path, typer.Option(help="Folder for calibration.json and calibration.html.")
    ] = Path("calibration"),
    sessions: Annotated[int, typer.Option(min=2, help="Simulated sessions a batch.")] = 1024,
) -> None:
    """Compare simulated users with their log: held-out click model, rates, distributions."""
    # Heavy imports wait until the command is run, so that --help is quick.
    from dataclasses import asdict

    from agents.studies.calibration.page import render_page, tables_of
    from agents.studies.calibration.report import calibrate
    from marec_env.io import write_json, write_text
    from marec_env.users import make_users
    from marec_env.world import build_world

    places = output / "calibration.json", output / "calibration.html"
    claim(*places, replace=True)  # seconds make it again; what it replaces is told
    earlier = " (in place of an earlier report)" if places[0].exists() else ""
    run, found = read_environment(config, overrides)
    # The report runs on the CPU whatever the run's device: its tensors are small.
    environment = found.model_copy(update={"device": "cpu"})
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
    write_json(places[0], asdict(report))
    write_text(places[1], render_page(report))
    print_tables(tables_of(report))
    written(*places, note=earlier)
