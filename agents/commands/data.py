"""``marec data``: published files as a log of one's own, and what a log holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agents.commands.shared import tell, written
from marec_env.errors import ConfigError
from marec_env.reporting.table import print_tables


def convert(
    name: Annotated[
        str | None, typer.Argument(help="Of the data set; without one they are listed.")
    ] = None,
    path: Annotated[Path | None, typer.Argument(help="Folder with its files as published.")] = None,
    out: Annotated[Path | None, typer.Argument(help="The log's folder; must be new.")] = None,
) -> int:
    """Write a published data set as a log that marec reads, and say what was left out and why."""
    from marec_env.data.published import convert as converted
    from marec_env.data.published import dataset, datasets

    if name is None:
        for each, known in datasets().items():
            tell(f"{each:<13}{known.title}")
            tell(f"{'':<13}terms: {known.terms}")
        return 0
    known = dataset(name)
    if path is None or out is None:
        raise ConfigError(f"marec data convert {name} PATH OUT: where the files are, and a folder")
    tell(f"{known.title}; terms: {known.terms}")
    for line in converted(known, path, out).lines():
        tell(line)
    if known.note:
        tell(f"note: {known.note}")
    tell(f"ratings: {known.meaning}")
    settings = {"source": out, "like_threshold": f"{known.like_threshold:g}"}
    if known.time_unit != "auto":
        settings["time_unit"] = known.time_unit
    chosen = " ".join(f"--set environment.data.{key}={value}" for key, value in settings.items())
    tell(f"train on it: marec train default {chosen}")
    return 0


def check(
    path: Annotated[str, typer.Argument(help="The log's folder, or another data.source.")],
    like_threshold: Annotated[
        float | None, typer.Option(help="data.like_threshold; the default's otherwise.")
    ] = None,
    time_unit: Annotated[str, typer.Option(help="data.time_unit.")] = "auto",
    output: Annotated[
        Path | None, typer.Option(help="Folder for data.html; without one no page.")
    ] = None,
) -> None:
    """Count, measure and doubt what a log holds, and say what marec will do with it."""
    from agents.studies.data_check import render_page, tables_of
    from marec_env.config.loader import load_mapping
    from marec_env.data.config import DataConfig
    from marec_env.data.log import load_log
    from marec_env.io import write_text

    given: dict[str, str | float] = {"source": path, "time_unit": time_unit}
    if like_threshold is not None:
        given["like_threshold"] = like_threshold
    config = load_mapping(given, DataConfig, "marec data check")
    log = load_log(config)
    print_tables(tables_of(log, config))
    if output is not None:
        write_text(output / "data.html", render_page(log, config))
        written(output / "data.html")
