"""``privacy``: what an attacker learns of users, and what protecting them costs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from agents.commands.shared import (
    Overrides,
    Replace,
    claim,
    command_line,
    listed,
    open_runs,
    read_environment,
    tell,
    written,
)
from marec_env.config import MAX_SEED
from marec_env.errors import ConfigError
from marec_env.reporting.table import TextTable, print_tables

if TYPE_CHECKING:
    from agents.config import RunConfig
    from agents.studies.privacy.curve import Plan
    from agents.studies.records import Cells

KeyFile = Annotated[
    Path | None,
    typer.Option(help="File with the key of pseudonyms; by default MAREC_PRIVACY_KEY has it."),
]

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
        Literal["attacks", "teams", "messages", "curve", "federated", "federated-teams"],
        typer.Option(
            help="attacks: on what is configured; teams: on teams trained on halves of the log's "
            "users; messages: clicks, and what messages tell, over their local ε; curve: recall, "
            "clicks and attacks over ε, of factors, hand-set play and trained teams, with figures; "
            "federated: factors learned over shards of the users; federated-teams: teams. All but "
            "the first go on where they were cut off."
        ),
    ] = "attacks",
    only: Annotated[
        str,
        typer.Option(
            help="Measure only the cells whose names, as told while they are measured, match a "
            "pattern ('*seed 3'), into a file of their own: for several processes at once. A call "
            "without it, in the same folder, takes all of them together."
        ),
    ] = "*",
    seeds: Annotated[
        int, typer.Option(min=1, help="Parts curve, messages, federated*: seeds.")
    ] = 5,
    sessions: Annotated[
        int, typer.Option(min=2, help="Parts curve, messages, federated*: sessions of clicks.")
    ] = 512,
    train_steps: Annotated[
        int,
        typer.Option(min=0, help="Requests a team trains on; 0: none."),
    ] = 40_000,
    init_from: Annotated[
        Path | None,
        typer.Option(help="Part federated-teams: a run whose newest networks teams begin with."),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(help="Folder for privacy.json and privacy.html, curve.*, or PART.json."),
    ] = Path("privacy"),
    replace: Replace = False,
) -> None:
    """Measure what is learned of the log's users: how few events single one out, who was in the log
    (membership), and gender and age from what components observe, keep and say (attributes).
    """
    if models % 2:
        raise ConfigError(f"--models {models}: half of them lack each user; take an even number")
    if part != "attacks":
        from agents.runs.trained import load_run
        from agents.studies.privacy.curve import Plan

        run, _ = read_environment(place, overrides)
        start = None if init_from is None else str(load_run(init_from, tell).newest().trainer)
        plan = Plan(
            seeds=seeds,
            models=models,
            sessions=sessions,
            cohort=_COHORT,
            train_steps=train_steps,
            requests=requests,
            seed=seed,
            start=start,
        )
        _study(part, run, plan, output, replace, only)
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
    notes = report["notes"]
    made = Section("Made by", verbatim=(command_line(),))
    write_text(places[1], render_page("What is learned of users", [], notes, [*sections, made]))
    print_tables(tables)
    for note in notes:
        typer.echo(f"note: {note}")
    written(*places)


def _earlier(result: Path, *others: Path, replace: bool, only: str) -> dict[str, Any] | None:
    """Return what is there to continue, if anything, and claim the files; without a pattern of
    cells, what other processes measured as well.

    Raises:
        RunError: a file cannot be read, or is of other settings than the rest.
    """
    from marec_env.errors import RunError
    from marec_env.io import read_json

    whole: dict[str, Any] | None = None
    files = [result] if only != "*" else sorted(result.parent.glob(f"{result.stem}*.json"))
    for file in files:
        if not file.is_file() or (replace and file == result):
            continue
        found = read_json(file, dict[str, Any], "; nothing to continue: write elsewhere")
        if whole is None:
            whole = found
        elif {**found, "cells": None} != {**whole, "cells": None}:
            raise RunError(f"{file} is of other settings than {files[0]}; move one of them away")
        whole["cells"] |= found["cells"]
    claim(result, *others, replace=replace or whole is not None)
    return whole


def _place(output: Path, part: str, only: str) -> Path:
    """Return the file of a study, or of those of its cells that match a pattern."""
    named = re.sub(r"\W+", "-", only).strip("-")
    return output / f"{part}{'-' + named if named else ''}.json"


def _study(part: str, run: RunConfig, plan: Plan, output: Path, replace: bool, only: str) -> None:
    """Measure cell by cell, kept in ``PART.json``, and print what was found; draw the curve."""
    from agents.studies.privacy.curve import curve_cells, curve_table
    from agents.studies.privacy.federated_teams import federated_teams_cells, federated_teams_table
    from agents.studies.privacy.messages import messages_cells, messages_table
    from agents.studies.privacy.shards import shards_cells, shards_table
    from agents.studies.privacy.teams import teams_cells, teams_tables
    from marec_env.io import write_json

    parts: dict[str, tuple[Callable[[RunConfig, Plan], Cells], Callable[..., list[TextTable]]]] = {
        "curve": (curve_cells, lambda report: [curve_table(report)]),
        "federated": (shards_cells, lambda report: [shards_table(report)]),
        "federated-teams": (federated_teams_cells, lambda report: [federated_teams_table(report)]),
        "messages": (messages_cells, lambda report: [messages_table(report)]),
        "teams": (teams_cells, teams_tables),
    }
    cells_of, tables_of = parts[part]
    whole = only == "*"
    result, page = _place(output, part, only), output / "curve.html"
    drawn = [page] if whole and part == "curve" else []
    earlier = _earlier(result, *drawn, replace=replace, only=only)
    report = cells_of(run, plan).measured(
        lambda found: write_json(result, found), tell, earlier, only
    )
    if whole:
        write_json(result, report)
        print_tables(tables_of(report))
    written(result, *drawn, *(_draw_curve(report, page) if drawn else []))


def _draw_curve(report: Mapping[str, Any], page: Path) -> list[Path]:
    """Write the curve's page, and its pictures beside it; return these."""
    from agents.studies.privacy.curve import curve_figures, curve_table
    from marec_env.io import write_text
    from marec_env.reporting.page import Section, render_page

    figures = curve_figures(report)
    pictures = [page.with_name(f"curve-{name}.svg") for name in ("recall", "clicks", "attacks")]
    for picture, figure in zip(pictures, figures, strict=True):
        write_text(picture, figure.svg)
    sections = [
        Section("Over ε", (curve_table(report),), figures),
        Section("Made by", verbatim=(command_line(),)),
    ]
    write_text(page, render_page("What privacy costs and buys", [], [], sections))
    return pictures


def anonymise(
    log: Annotated[str, typer.Argument(help="The log's folder, or movielens-100k.")],
    out: Annotated[Path, typer.Argument(help="The new log's folder; must be new.")],
    key_file: KeyFile = None,
    days: Annotated[
        int, typer.Option(min=0, help="Times are cut to so many days; 0: kept as they are.")
    ] = 7,
    events: Annotated[int, typer.Option(min=0, help="Events kept of a user; 0: all.")] = 200,
    k: Annotated[
        int,
        typer.Option(
            min=1, help="At least so many users share their attributes, and consumed each item."
        ),
    ] = 5,
    keep: Annotated[
        str, typer.Option(help="Further columns of interactions to keep, comma-separated.")
    ] = "",
) -> None:
    """Write a log with pseudonyms for users, coarse times, fewer events and k-anonymous attributes;
    say what was left out, and how many known events single a user out before and after.
    """
    from agents.studies.privacy.report import uniqueness, uniqueness_table
    from marec_env.data.config import DataConfig
    from marec_env.data.log import load_log
    from marec_env.data.readers import read_plain
    from marec_env.privacy.anonymise import Coarsening, secret_key
    from marec_env.privacy.anonymise import anonymise as made

    key = secret_key(key_file)
    told = made(log, out, key, Coarsening(days, events, k, tuple(listed(keep))))
    for line in told.lines():
        tell(f"left out: {line}")
    found = {
        f"{name}, {when}": row
        for when, source in (("before", log), ("after", str(out)))
        for name, row in uniqueness(
            (load_log if source == "movielens-100k" else read_plain)(DataConfig(source=source)), 0
        ).items()
    }
    print_tables([uniqueness_table(found)])
    typer.echo(
        "The log is pseudonymous, not anonymous: who knows events of a user may find the others, "
        "and who has the key finds everybody."
    )
    written(out)


def forget(
    log: Annotated[Path, typer.Argument(help="The log's folder.")],
    users: Annotated[list[str], typer.Argument(help="Identifiers of the users to take out.")],
    key_file: Annotated[
        Path | None,
        typer.Option(help="Key of an anonymised log, whose users are then named as they were."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Where runs lie, to say which knew the users.")] = Path(
        "runs"
    ),
) -> None:
    """Take users out of a log's files, and say which runs learned from the log as it was."""
    from agents.runs.folder import RunFolder
    from agents.runs.manifest import read_manifest
    from marec_env.data.config import DataConfig
    from marec_env.data.readers import files_fingerprint
    from marec_env.errors import RunError
    from marec_env.privacy.anonymise import forget as forgotten
    from marec_env.privacy.anonymise import pseudonym, secret_key

    if key_file is not None:
        key = secret_key(key_file)
        users = [pseudonym(key, name) for name in users]
    before = files_fingerprint(DataConfig(source=str(log)))
    for name, rows in forgotten(log, users).items():
        typer.echo(f"{name}: {rows:,} rows taken out")
    for place in sorted(runs.glob("*/manifest.json")):
        with suppress(RunError):
            if before in read_manifest(place).get("inputs", {}).values():
                tell(f"{RunFolder(place.parent).path} learned from them: train it anew")
    written(log)
