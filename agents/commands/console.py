"""The console on which commands print their tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["table_console"]

_TABLE_WIDTH = 110  # columns that no cell is cut at


def table_console() -> Console:
    """Return a console at least as wide as the tables, whatever the terminal or pipe says."""
    from rich.console import Console

    console = Console()
    return console if console.width >= _TABLE_WIDTH else Console(width=_TABLE_WIDTH)
