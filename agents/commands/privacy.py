"""``privacy``: what an attacker learns of users, and what protecting them costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
from marec_env.config import MAX_SEED
from marec_env.errors import ConfigError
from marec_env.reporting.table import print_tables

__all__ = ["command"]


def command(
    place: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|CONFIG", help="A run's folder, or a YAML file or preset, e.g. quick."
        ),
    ],
    overrides: Overrides = None,
    models: Annotated[
        int, typer.Option(min=4, max=512, help="Models that membership inference attacks; even.")
    ] = 16,
    requests: Annotated[
        int, typer.Option(min=1, help="Requests that attributes are inferred from.")
    ] = 8,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of all draws.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder for privacy.json and privacy.html.")] = Path(
        "privacy"
    ),
    replace: Replace = False,
) -> None:
    """Measure what is learned of the log's users: how few events single one out, who was in the log
    (membership), and gender and age from what components observe, keep and say (attributes).
    """
    from agents.studies.privacy.report import measure, tables_of
    from agents.studies.records import plain
    from marec_env.io import write_json, write_text
    from marec_env.reporting.page import Section, render_page

    if models % 2:
        raise ConfigError(f"--models {models}: half of them lack each user; take an even number")
    if (place / "config.yaml").is_file():
        if overrides:
            raise ConfigError("--set is for configurations; what a run was made of is fixed")
        (run,) = open_runs([place]).values()
        environment, policy = run.environment, run.policy
    else:
        environment, policy = read_environment(place, overrides)[1], None
    places = output / "privacy.json", output / "privacy.html"
    claim(*places, replace=replace)
    report = measure(environment, policy, models, requests, seed, tell)
    write_json(places[0], plain(report))
    tables = tables_of(report)
    sections = [Section(table.title, (table,)) for table in tables]
    notes = [report["note"]] if report["note"] else []
    made = Section("Made by", verbatim=(command_line(),))
    write_text(places[1], render_page("What is learned of users", [], notes, [*sections, made]))
    print_tables(tables)
    for note in notes:
        typer.echo(f"note: {note}")
    written(*places)
