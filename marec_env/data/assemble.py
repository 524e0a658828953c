"""From tables of identifiers to a log of positions; shared by the readers of real data."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from marec_env.data.config import DataConfig
from marec_env.data.impressions import impressions_of
from marec_env.data.log import InteractionLog, make_log
from marec_env.data.tables import Table
from marec_env.errors import DataError
from marec_env.io import sha256_of

__all__ = ["assemble", "group_users", "item_text", "natural_title"]

_AGE_BANDS = ((25, "under 25"), (35, "25-34"), (45, "35-44"), (55, "45-54"))  # upper bound, name
_OLDEST = "55 and over"
_ARTICLE_LAST = re.compile(r"^(.+), (The|A|An|La|Le|Les|Il|Der|Die|Das|El|Los|L')$")
_UNKNOWN = "unknown"
_NUMERIC_ATTRIBUTES = frozenset({"risk_limit"})
"""Of users: what the simulator reads by name. One bad cell must not switch suitability off."""


def natural_title(title: str) -> str:
    """Return a title with its article in front: catalogues sort ``Usual Suspects, The``."""
    match = _ARTICLE_LAST.match(title)
    if match is None:
        return title
    rest, article = match.groups()
    return f"{article}{'' if article.endswith(chr(39)) else ' '}{rest}"


def item_text(title: str, genres: Sequence[str], description: str = "") -> str:
    """Return what an encoder reads: ``title. genres. description``, empty parts left out."""
    return ". ".join(part for part in (title, ", ".join(genres), description) if part)


def group_users(
    users: Table | None, key: str, user_ids: Sequence[str], group_by: str
) -> tuple[Tensor, tuple[str, ...]]:
    """Return each user's group, int64 ``[U]``, and the groups' names in alphabetical order."""
    if users is None or group_by not in users:
        return torch.zeros(len(user_ids), dtype=torch.int64), ("all",)
    if group_by == "age":
        values = [_age_band(age) for age in users.numbers("age")]
    else:
        values = [value or _UNKNOWN for value in users.columns[group_by]]
    by_id = dict(zip(users.columns[key], values, strict=True))
    names = tuple(sorted({by_id[user] for user in user_ids}))
    position = {name: index for index, name in enumerate(names)}
    return torch.tensor([position[by_id[user]] for user in user_ids]), names


def _age_band(age: float) -> str:
    return next((name for bound, name in _AGE_BANDS if age < bound), _OLDEST)


def _natural(identifier: str) -> tuple[int, int, str]:
    """Sort key: whole numbers by value before other identifiers by text."""
    if identifier.isdecimal():
        return (0, int(identifier), identifier)
    return (1, 0, identifier)


def assemble(
    config: DataConfig,
    interactions: Table,
    items: Table,
    users: Table | None,
    *,
    keys: tuple[str, str, str, str],
    titles: Sequence[str],
    genres: Sequence[tuple[str, ...]],
    descriptions: Sequence[str],
    years: Sequence[int],
    behaviours: dict[str, list[float]] | None = None,
    item_attributes: dict[str, list[float]] | None = None,
    providers: Sequence[str] | None = None,
    impressions: Table | None = None,
) -> InteractionLog:
    """Return the log of three tables.

    Args:
        config: the data section.
        interactions: one row an interaction.
        items: one row an item; its order is the catalog's.
        users: one row a user, or ``None``; users whom no other table names are left out.
        keys: names of the columns with user, item, rating and time (seconds).
        titles: of each item; likewise ``genres``, ``descriptions`` and ``years`` (-1: unknown).
        genres: of each item, any number of them.
        descriptions: of each item, may be empty.
        years: of release.
        behaviours: further columns of the interactions.
        item_attributes: further columns of the items.
        providers: of each item, or ``None``.
        impressions: one row an item shown, or ``None``; its users are named ``user_id``.

    Raises:
        DataError: duplicate or unknown identifiers, or cells that are not numbers.
    """
    user_key, item_key, rating_key, time_key = keys
    item_ids = items.unique(item_key)
    item_position = {name: index for index, name in enumerate(item_ids)}
    item_column = interactions.identifiers(item_key)
    unknown = [row for row, item in enumerate(item_column) if item not in item_position]
    if unknown:
        raise interactions.fail(
            unknown, f"'{item_key}' is not in {items.path.name}, first '{item_column[unknown[0]]}'"
        )
    user_column = interactions.identifiers(user_key)
    named = set(user_column)
    if users is not None:
        _refuse_unknown_users(interactions, user_key, users, user_key)
    if impressions is not None:
        if users is not None:
            _refuse_unknown_users(impressions, "user_id", users, user_key)
        named |= set(impressions.identifiers("user_id"))
    user_ids = tuple(sorted(named, key=_natural))
    user_position = {name: index for index, name in enumerate(user_ids)}
    group, group_names = group_users(users, user_key, user_ids, config.group_by)
    provider = None
    if providers is not None:
        names = {name: index for index, name in enumerate(sorted(set(providers)))}
        provider = torch.tensor([names[name] for name in providers])
    tables = (interactions, items, users, impressions)
    files = [table.path for table in tables if table is not None]
    sources = {path.name: sha256_of(path) for path in files}
    return make_log(
        user=torch.tensor([user_position[user] for user in user_column]),
        item=torch.tensor([item_position[item] for item in item_column]),
        rating=torch.tensor(interactions.numbers(rating_key), dtype=torch.float32),
        time=torch.tensor(interactions.numbers(time_key), dtype=torch.float64).to(torch.int64),
        user_ids=user_ids,
        item_ids=tuple(item_ids),
        titles=tuple(titles),
        texts=tuple(item_text(*parts) for parts in zip(titles, genres, descriptions, strict=True)),
        genres=tuple(genres),
        year=torch.tensor(years, dtype=torch.int64),
        like_threshold=config.like_threshold,
        group=group,
        group_names=group_names,
        fingerprint=combined_hash(sources),
        sources=sources,
        behaviours=_tensors(behaviours),
        item_attributes=_tensors(item_attributes),
        provider=provider,
        user_attributes=_user_attributes(users, user_key, user_ids),
        impressions=None
        if impressions is None
        else impressions_of(impressions, user_position, item_position),
    )


def _refuse_unknown_users(table: Table, key: str, users: Table, user_key: str) -> None:
    known = set(users.unique(user_key))
    column = table.identifiers(key)
    unknown = [row for row, user in enumerate(column) if user not in known]
    if unknown:
        first = column[unknown[0]]
        raise table.fail(unknown, f"'{key}' is not in {users.path.name}, first '{first}'")


def _user_attributes(users: Table | None, key: str, user_ids: Sequence[str]) -> dict[str, Tensor]:
    """Return the columns of the users' file that hold numbers only, float32 ``[U]`` each.

    Raises:
        DataError: a column of :data:`_NUMERIC_ATTRIBUTES` has a cell that is no number.
    """
    if users is None:
        return {}
    row = {user: place for place, user in enumerate(users.columns[key])}
    places = [row[user] for user in user_ids]
    found = {}
    for name in users.columns:
        if name == key:
            continue
        try:
            values = users.numbers(name)
        except DataError:
            if name in _NUMERIC_ATTRIBUTES:
                raise
            continue  # words, such as a gender
        found[name] = torch.tensor([values[place] for place in places], dtype=torch.float32)
    return found


def combined_hash(sources: dict[str, str]) -> str:
    """Return one SHA-256 for several files' names and hashes."""
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(sources.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _tensors(columns: dict[str, list[float]] | None) -> dict[str, Tensor]:
    return {
        name: torch.tensor(values, dtype=torch.float32) for name, values in (columns or {}).items()
    }
