"""Tables for the terminal and for the page, from one description."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

__all__ = ["Table", "print_tables"]


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table of text cells."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def as_html(self) -> str:
        """Return the table as HTML with a caption, and its notes below."""

        def cells(tag: str, row: Sequence[str]) -> str:
            return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)

        body = "".join(f"<tr>{cells('td', row)}</tr>" for row in self.rows)
        notes = "".join(f"<p class='note'>{html.escape(note)}</p>" for note in self.notes)
        return (
            f"<div class='scroll'><table><caption>{html.escape(self.title)}</caption>"
            f"<thead><tr>{cells('th', self.columns)}</tr></thead><tbody>{body}</tbody></table>"
            f"</div>{notes}"
        )


def print_tables(tables: Sequence[Table], console: Console | None = None) -> None:
    """Print tables and their notes."""
    out = console or Console()
    for table in tables:
        rendered = RichTable(title=Text(table.title), title_justify="left")
        for column in table.columns:
            rendered.add_column(Text(column), overflow="fold")
        for row in table.rows:
            rendered.add_row(*(Text(cell) for cell in row))
        out.print(rendered)
        for note in table.notes:
            out.print(Text(f"  {note}"))
