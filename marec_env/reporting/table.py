"""Tables of text, described once for the terminal, the page and Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["TextTable", "print_tables", "table_console"]

_NARROWEST = 110  # characters at which no cell is cut


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table of text; the first cell of a row names it, and a second line in a cell is small."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    """How to read it; below the table."""
    prose: bool = False
    """Whether cells are words rather than numbers."""

    def as_markdown(self) -> str:
        """Return the table and its notes as GitHub has them."""

        def line(cells: Sequence[str]) -> str:
            shown = (" ".join(cell.replace("|", "\\|").split()) for cell in cells)
            return "| " + " | ".join(shown) + " |"

        rest = ":---" if self.prose else "---:"
        rule = "|:---|" + f"{rest}|" * (len(self.header) - 1)
        notes = [part for note in self.notes for part in ("", note)]
        lines = [line(self.header), rule, *(line(row) for row in self.rows), *notes]
        return "\n".join(lines) + "\n"


def table_console() -> Console:
    """Return a console at least as wide as the tables, whatever the terminal or pipe says."""
    from rich.console import Console

    console = Console()
    return console if console.width >= _NARROWEST else Console(width=_NARROWEST)


def print_tables(tables: Iterable[TextTable], console: Console | None = None) -> None:
    """Print tables and their notes.

    Args:
        tables: in order.
        console: where; a :func:`table_console` by default.
    """
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    out = console or table_console()
    for table in tables:
        if table.title:  # not as the table's own, which would wrap at its width
            out.print(Text(table.title, style="italic"))
        shown = Table()
        for place, cell in enumerate(table.header):
            shown.add_column(
                Text(cell),
                justify="right" if place and not table.prose else "left",
                # Headings wrap, but their words are not cut.
                min_width=max(map(len, cell.split()), default=0),
                overflow="fold",
                no_wrap=not place and not table.prose,
            )
        for row in table.rows:
            shown.add_row(*(Text(cell) for cell in row))
        out.print(shown)
        for note in table.notes:
            out.print(Padding(Text(note), (0, 0, 0, 2)))
