"""Tables of text, described once for the terminal, the page, Markdown and CSV.

What a table shows may come from a stranger's file (titles, names of policies and keys), so each
form is escaped where it is written: nothing in a cell acts in a terminal, in Markdown, or in the
spreadsheet that opens the CSV.
"""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from marec_env.errors import visible

if TYPE_CHECKING:
    from rich.console import Console

_LETTER, _PADDING, _NAME, _PROSE = 8, 20, 128, 96  # pixels, see page.html; at least, of a column
_NARROWEST = 110  # characters at which no cell is cut
# Code, emphasis, tables, struck-out text, mathematics; the middle of links and images, and what
# GitHub takes for a link by itself. An underscore inside a word is only itself.
_MARKUP = re.compile(r"[\\`*|~$]|(?<!\w)_|_(?!\w)|(?<=\])[(\[]|(?<=:)//|(?<=www)\.|(?<=\w)@(?=\w)")
# A spreadsheet takes a cell that begins so for a formula (OWASP, "CSV injection").
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")


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

    @property
    def width(self) -> int:
        """About how many pixels a page needs for it: names, headings and prose wrap."""
        total = 0
        for place, (heading, *cells) in enumerate(zip(self.header, *self.rows, strict=True)):
            wraps = place == 0 or self.prose
            parts = [
                part for cell in cells for part in (cell.split() if wraps else cell.split("\n"))
            ]
            widest = max(map(len, [*heading.split(), *parts]), default=0)
            least = _NAME if place == 0 else _PROSE if self.prose else 0
            total += max(least, _LETTER * widest) + _PADDING
        return total

    def as_markdown(self) -> str:
        """Return the table and its notes as GitHub has them."""

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(markdown(cell) for cell in cells) + " |"

        rest = ":---" if self.prose else "---:"
        rule = "|:---|" + f"{rest}|" * (len(self.header) - 1)
        notes = [part for note in self.notes for part in ("", markdown(note))]
        lines = [line(self.header), rule, *(line(row) for row in self.rows), *notes]
        return "\n".join(lines) + "\n"


def markdown(text: str) -> str:
    """Return text as Markdown that shows it as it is, on one line."""
    line = visible(" ".join(text.split()))
    return _MARKUP.sub(lambda found: f"\\{found[0]}", html.escape(line, quote=False))


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as CSV.

    Text that a spreadsheet would take for a formula gets an apostrophe before it, which
    spreadsheets take for "text"; numbers stay as they are, and ``None`` is empty.

    Args:
        header: names of the columns.
        rows: text, numbers or ``None``.
    """

    def cell(value: object) -> object:
        if not isinstance(value, str):
            return value
        harmless = f"'{value}" if value.lstrip(" ").startswith(_FORMULA) else value
        return visible(harmless, keep="\n\t")

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([cell(name) for name in header])
    writer.writerows([cell(value) for value in row] for row in rows)
    return text.getvalue()


def table_console() -> Console:
    """Return a terminal at least as wide as the tables, whatever the real one or the pipe says."""
    from marec_env.reporting.terminal import Terminal

    console = Terminal()
    return console if console.width >= _NARROWEST else Terminal(width=_NARROWEST)


def print_tables(tables: Iterable[TextTable], console: Console | None = None) -> None:
    """Print tables and their notes; what is too wide comes in parts below each other.

    Args:
        tables: in order.
        console: where; a :func:`table_console` by default.
    """
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    def text(cell: str, style: str = "") -> Text:
        return Text(visible(cell, keep="\n"), style=style)

    out = console or table_console()
    for table in tables:
        if table.title:  # not as the table's own, which would wrap at its width
            out.print(text(table.title, style="italic"))
        for columns in _parts(table, out.width):
            shown = Table()
            for place, width in columns.items():
                shown.add_column(
                    text(table.header[place]),
                    justify="right" if place and not table.prose else "left",
                    min_width=width,
                    overflow="fold",
                    no_wrap=not place and not table.prose,
                )
            for row in table.rows:
                shown.add_row(*(text(row[place]) for place in columns))
            out.print(shown)
        for note in table.notes:
            out.print(Padding(text(note), (0, 0, 0, 2)))


def _parts(table: TextTable, room: int) -> list[dict[int, int]]:
    """Return the columns to print together, the first in each part, with their least widths.

    Headings and intervals wrap, but their words are not cut; paths and other prose are.
    """
    from rich.cells import cell_len

    def least(place: int) -> int:
        cells = [] if table.prose else [row[place] for row in table.rows]
        words = [w for cell in (table.header[place], *cells) for w in visible(cell, "\n").split()]
        whole = [visible(cell) for cell in (table.header[place], *cells)]  # names do not wrap
        return max(map(cell_len, words if place or table.prose else whole), default=0)

    first = {0: least(0)}
    parts: list[dict[int, int]] = []
    for place in range(1, len(table.header)):
        wider = {**(parts[-1] if parts else first), place: least(place)}
        if parts and not table.prose and sum(wider.values()) + 3 * len(wider) + 1 > room:
            parts.append({**first, place: wider[place]})
        else:
            parts[-1:] = [wider]
    return parts or [first]
