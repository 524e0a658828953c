"""The plain format: a folder with ``interactions.csv`` and ``items.csv``; ``users.csv`` and
``impressions.csv`` may be there too.

See ``docs/data.md`` for the columns.
"""

from __future__ import annotations

from pathlib import Path

from marec_env.data.assemble import assemble
from marec_env.data.config import DataConfig
from marec_env.data.impressions import IMPRESSION_COLUMNS
from marec_env.data.log import InteractionLog
from marec_env.data.tables import Table, read_table
from marec_env.errors import DataError

__all__ = ["read_plain"]

_INTERACTIONS = ("user_id", "item_id", "rating", "timestamp")
_ITEMS = ("item_id", "title")
_ITEM_TEXT = ("genres", "description", "year", "provider")
_GENRE_SEPARATOR = "|"


def _numeric_rest(table: Table, known: tuple[str, ...]) -> dict[str, list[float]]:
    """Return the columns beside the known ones; each must be numeric."""
    return {name: table.numbers(name) for name in table.columns if name not in known}


def _optional(table: Table, name: str) -> list[str]:
    return table.columns.get(name, [""] * len(table))


def _year(cell: str) -> int:
    return int(cell) if cell else -1


def read_plain(config: DataConfig) -> InteractionLog:
    """Return the log of a folder in the plain format.

    Raises:
        DataError: the folder or a file is missing, empty, or has bad content.
    """
    folder = Path(config.source).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"data.source '{config.source}': no such folder; allowed: 'movielens-100k', "
            "'synthetic/<scenario>', or a folder with interactions.csv and items.csv"
        )
    interactions = read_table(folder / "interactions.csv", _INTERACTIONS)
    items = read_table(folder / "items.csv", _ITEMS)
    users_path = folder / "users.csv"
    users = read_table(users_path, ("user_id",)) if users_path.is_file() else None
    shown_path = folder / "impressions.csv"
    shown = read_table(shown_path, IMPRESSION_COLUMNS) if shown_path.is_file() else None
    years = items.parse("year", _year, "a whole year or empty") if "year" in items else None
    return assemble(
        config,
        interactions,
        items,
        users,
        keys=_INTERACTIONS,
        titles=items.identifiers("title"),
        genres=[
            tuple(part.strip() for part in cell.split(_GENRE_SEPARATOR) if part.strip())
            for cell in _optional(items, "genres")
        ],
        descriptions=_optional(items, "description"),
        years=years if years is not None else [-1] * len(items),
        behaviours=_numeric_rest(interactions, _INTERACTIONS),
        item_attributes=_numeric_rest(items, _ITEMS + _ITEM_TEXT),
        impressions=shown,
        providers=items.identifiers("provider") if "provider" in items else None,
    )
