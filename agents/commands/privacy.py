"""``privacy``: what an attacker learns of users, and what protecting them costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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

if TYPE_CHECKING:
    from agents.config import RunConfig
    from agents.studies.privacy.curve import CurvePlan

__all__ = ["command"]

_COHORT = 1_000_003  # seed of the sessions on which clicks are measured


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
    part: Annotated[
        Literal["attacks", "curve"],
        typer.Option(
            help="attacks: on what is configured; curve: recall, clicks and attacks over ε, of "
            "factors, hand-set play and trained teams, with figures; goes on where it was cut off."
        ),
    ] = "attacks",
    seeds: Annotated[int, typer.Option(min=1, help="Part curve: seeds at each ε.")] = 5,
    sessions: Annotated[int, typer.Option(min=2, help="Part curve: sessions of clicks.")] = 512,
    train_steps: Annotated[
        int, typer.Option(min=0, help="Part curve: requests a team trains on; 0 trains none.")
    ] = 40_000,
    output: Annotated[
        Path, typer.Option(help="Folder for privacy.json and privacy.html, or curve.*.")
    ] = Path("privacy"),
    replace: Replace = False,
) -> None:
    """Measure what is learned of the log's users: how few events single one out, who was in the log
    (membership), and gender and age from what components observe, keep and say (attributes).
    """
    if models % 2:
        raise ConfigError(f"--models {models}: half of them lack each user; take an even number")
    if part == "curve":
        from agents.studies.privacy.curve import CurvePlan

        run, _ = read_environment(place, overrides)
        plan = CurvePlan(seeds, models, sessions, _COHORT, train_steps)
        _curve(run, plan, output, replace)
        return
    from agents.studies.privacy.report import measure, tables_of
    from agents.studies.records import plain
    from marec_env.io import write_json, write_text
    from marec_env.reporting.page import Section, render_page

    if (place / "config.yaml").is_file():
        if overrides:
            raise ConfigError("--set is for configurations; what a run was made of is fixed")
        (trained,) = open_runs([place]).values()
        environment, policy = trained.environment, trained.policy
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


def _curve(run: RunConfig, plan: CurvePlan, output: Path, replace: bool) -> None:
    from agents.studies.privacy.curve import curve_figures, curve_table, measure_curve
    from marec_env.io import read_json, write_json, write_text
    from marec_env.reporting.page import Section, render_page

    result, page = output / "curve.json", output / "curve.html"
    earlier = None
    if result.is_file() and not replace:
        earlier = read_json(result, dict[str, Any], "; it is no curve to continue: write elsewhere")
    claim(result, page, replace=replace or earlier is not None)
    report = measure_curve(run, plan, lambda found: write_json(result, found), tell, earlier)
    table, figures = curve_table(report), curve_figures(report)
    pictures = [output / f"curve-{name}.svg" for name in ("recall", "clicks", "attacks")]
    for picture, figure in zip(pictures, figures, strict=True):
        write_text(picture, figure.svg)
    sections = [
        Section("Over ε", (table,), figures),
        Section("Made by", verbatim=(command_line(),)),
    ]
    write_text(page, render_page("What privacy costs and buys", [], [], sections))
    print_tables([table])
    written(result, page, *pictures)
