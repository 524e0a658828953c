"""``python evaluate.py compare RUN...``: experiments beside each other, seeds as the unit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agents.commands.shared import Markdown, command_line, print_narrow, written

if TYPE_CHECKING:
    from agents.comparison.summary import Summary


def command(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, any number of seeds each.")],
    output: Annotated[Path, typer.Option(help="Folder for the written files.")] = Path(
        "comparison"
    ),
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Comparison",
    markdown: Markdown = None,
    rows: Annotated[
        list[Path] | None,
        typer.Option(
            help="Further rows: an evaluation.json, or the report of 'evaluate.py game' with its "
            "best static pipelines by search; may be repeated."
        ),
    ] = None,
    mixed_code: Annotated[
        bool, typer.Option("--mixed-code", help="Average seeds that different code trained.")
    ] = False,
) -> None:
    """Compare experiments over seeds: table, comparison.json, comparison.csv, comparison.html."""
    from agents.comparison.report import as_markdown
    from agents.comparison.runs import read_run
    from agents.comparison.summary import summarise
    from marec_env.io import write_text

    summary = summarise([read_run(path) for path in runs], rows or (), mixed_code)
    show(summary, output, title, command_line())
    if markdown is not None:
        write_text(markdown, as_markdown(summary, title, command_line()))
        written(markdown)


def show(summary: Summary, output: Path, title: str, made_by: str) -> None:
    """Print a comparison, and write its JSON, CSV and page, which tells what it was made by."""
    from agents.comparison import tables
    from agents.comparison.report import as_page
    from marec_env.io import write_json, write_text

    told = [tables.outcomes_table(summary), tables.quality_table(summary)]
    print_narrow([*told, *tables.pair_tables(summary)[:1]], summary.notes)
    write_json(output / "comparison.json", summary.as_dict())
    write_text(output / "comparison.csv", summary.as_csv())
    write_text(output / "comparison.html", as_page(summary, title, made_by))
    written(output / "comparison.json", note=", .csv, .html")
