"""The plain format: a folder with ``interactions.csv`` and ``items.csv``; ``users.csv``,
``impressions.csv`` and ``friends.csv`` may be there too.

See ``docs/data.md`` for the columns.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePath

import numpy as np
import torch
from torch import Tensor

from marec_env import random
from marec_env.data.config import DataConfig
from marec_env.data.interactions import Impressions, InteractionLog, lexicographic, make_log
from marec_env.data.tables import (
    UNKNOWN,
    Column,
    Table,
    UnfitError,
    number_or_unknown,
    read_table,
    whole,
)
from marec_env.data.times import read_times
from marec_env.errors import DataError
from marec_env.io import sha256_of

_FILES = ("interactions.csv", "items.csv", "users.csv", "impressions.csv", "friends.csv")
_INTERACTIONS = ("user_id", "item_id", "rating", "timestamp")
_ITEMS = ("item_id", "title")
_ITEM_TEXT = ("genres", "description", "year", "provider", "image")
_IMPRESSIONS = ("user_id", "item_id", "timestamp", "position", "click")
_FRIENDS = ("user_id", "friend_id")
_PROPENSITY = "propensity"
_LAST_POSITION = 9_999  # curves over positions have a place for each
_LATEST_YEAR = 9_999
_NUMERIC_ATTRIBUTES = frozenset({"risk_limit"})
"""Of users: what the simulator reads by name. One bad cell must not switch suitability off."""
_WORDS = "correct or remove them; of words, such as kinds of events, write a 0/1 column for each"
_ITEM_WORDS = "correct or remove them; words belong into 'genres' or 'description'"

_AGE_BANDS = ((25, "under 25"), (35, "25-34"), (45, "35-44"), (55, "45-54"))  # upper bound, name
_OLDEST = "55 and over"
YEAR_IN_TITLE = re.compile(r"\s*\((\d{4})\)$")
_NO_GROUP = "unknown"  # of users whose cell is empty


def item_text(title: str, genres: Sequence[str], description: str = "") -> str:
    """Return what an encoder reads: ``title. genres. description``, empty parts left out."""
    return ". ".join(part for part in (title, ", ".join(genres), description) if part)


def read_plain(config: DataConfig) -> InteractionLog:
    """Return the log of a folder in the plain format.

    Interactions of one user at one time are put in an order drawn by user and item: any order that
    the files happen to have would pass for the order of events.

    Raises:
        DataError: the folder or a file is missing, empty, or has bad content.
    """
    folder = Path(config.source).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"data.source '{config.source}': no such folder; allowed: 'movielens-100k', "
            "'synthetic/<scenario>', or a folder with interactions.csv and items.csv"
        )
    paths = [folder / name for name in _FILES]
    return log_of(
        config,
        read_table(paths[0], _INTERACTIONS),
        read_table(paths[1], _ITEMS, _ITEM_TEXT),
        read_table(paths[2], ("user_id",)) if paths[2].is_file() else None,
        read_table(paths[3], _IMPRESSIONS, (_PROPENSITY,)) if paths[3].is_file() else None,
        read_table(paths[4], _FRIENDS) if paths[4].is_file() else None,
        drawn_ties=True,
    )


def files_fingerprint(config: DataConfig) -> str | None:
    """Return the fingerprint that the log of a folder has now; ``None`` for other sources."""
    folder = Path(config.source).expanduser()
    if config.source == "movielens-100k" or config.source.startswith("synthetic/"):
        return None
    found = {}
    for name in _FILES:
        with suppress(OSError):  # what cannot be read is told by the reader
            found[name] = sha256_of(folder / name)
    return _combined_hash(found)


def log_of(
    config: DataConfig,
    interactions: Table,
    items: Table,
    users: Table | None,
    shown: Table | None,
    friends: Table | None = None,
    *,
    drawn_ties: bool,
) -> InteractionLog:
    """Return the log of tables in the plain format; those of the catalog give its order.

    Raises:
        DataError: duplicate or unknown identifiers, or bad cells.
    """
    item_ids = tuple(items.unique("item_id"))
    item_place = {name: place for place, name in enumerate(item_ids)}
    item = interactions.places("item_id", item_place, items.path)
    given = [table for table in (interactions, shown) if table is not None]
    if users is not None:
        everybody = {name: place for place, name in enumerate(users.unique("user_id"))}
        for table in given:
            table.places("user_id", everybody, users.path)
    named = {name for table in given for name in table.different("user_id")}
    user_ids = tuple(sorted(named, key=_natural))
    user_place = {name: place for place, name in enumerate(user_ids)}
    user = interactions.places("user_id", user_place, interactions.path)
    times = read_times(interactions, "timestamp", config.time_unit)
    drawn = (_drawn_order(user_ids, item_ids, user, item),) if drawn_ties else ()
    titles, texts, genres, years = _descriptions(items)
    group, group_names = _groups(users, user_ids, config.group_by)
    impressions, note = None, None
    if shown is not None:
        impressions, note = _impressions(shown, user_place, item_place, items.path, config)
    pairs = None if friends is None else _friends(friends, user_place)
    every = (interactions, items, users, shown, friends)
    tables = [table for table in every if table is not None]
    notes = [*(note for table in tables for note in table.notes), times.note, note]
    sources = {table.path.name: table.digest for table in tables}
    return make_log(
        ties=(*drawn, times.exact),
        user=user,
        item=item,
        rating=torch.from_numpy(interactions.numbers("rating")).to(torch.float32),
        time=times.seconds,
        user_ids=user_ids,
        item_ids=item_ids,
        titles=titles,
        texts=texts,
        genres=genres,
        year=torch.tensor(years, dtype=torch.int64),
        like_threshold=config.like_threshold,
        group=group,
        group_names=group_names,
        fingerprint=_combined_hash(sources),
        sources=sources,
        behaviours=_further(interactions, _INTERACTIONS, _WORDS),
        item_attributes=_further(items, _ITEMS + _ITEM_TEXT, _ITEM_WORDS),
        images=tuple(items.parse("image", _image, "a file in the folder or empty"))
        if "image" in items
        else (),
        provider=_coded(items.identifiers("provider"))[0] if "provider" in items else None,
        user_attributes=_user_attributes(users, user_ids),
        impressions=impressions,
        friends=pairs,
        warnings=tuple(note for note in notes if note is not None),
    )


def _natural(identifier: str) -> tuple[int, int, str]:
    """Sort key: whole numbers by value before other identifiers by text."""
    if identifier.isascii() and identifier.isdecimal():
        digits = identifier.lstrip("0")  # compared by length, then digits: of any length
        return (0, len(digits), digits + identifier)
    return (1, 0, identifier)


def _drawn_order(
    user_ids: Sequence[str], item_ids: Sequence[str], user: Tensor, item: Tensor
) -> Tensor:
    """Return a draw for each interaction, int64 ``[R]``, whatever the order of the files."""
    of_user = random.session_keys(0, random.keys_of(user_ids))
    return random.session_keys(0, of_user[user] + random.keys_of(item_ids)[item])


def _descriptions(
    items: Table,
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, ...], ...], list[int]]:
    """Return titles, texts, genres and years of the items."""
    nothing = Column([""], np.zeros(len(items), np.int32))
    titles = items.identifiers("title")
    genres = items.parse("genres", _genres, "text") if "genres" in items else [()] * len(items)
    words = zip(titles, genres, items.columns.get("description", nothing), strict=True)
    texts = tuple(item_text(*parts) for parts in words)
    told = items.parse("year", _year, "a whole year or empty") if "year" in items else None
    years = [
        year if year > 0 else int(year_of(title) or -1)
        for title, year in zip(titles, told or [-1] * len(items), strict=True)
    ]
    return tuple(titles), texts, tuple(genres), years


def _genres(cell: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in cell.split("|") if part.strip())


def _year(cell: str) -> int:
    """Return a year; -1 for an empty cell, a word for it, 0 and -1."""
    value = -1 if cell.lower() in UNKNOWN else whole(cell)
    if not -1 <= value <= _LATEST_YEAR:
        raise ValueError(cell)
    return value


def _image(cell: str) -> str:
    """Return the file of a picture, which lies in the log's folder."""
    if "://" in cell:
        raise UnfitError("a file in the folder, not a link: download the pictures")
    path = PurePath(cell)
    if path.is_absolute() or ".." in path.parts or "\0" in cell:
        raise UnfitError("a file in the folder, by its path from there, without '..'")
    return cell


def year_of(title: str) -> str | None:
    """Return the year in parentheses that ends a title."""
    match = YEAR_IN_TITLE.search(title)
    return None if match is None else match.group(1)


def _further(table: Table, known: Sequence[str], cure: str) -> dict[str, Tensor]:
    """Return the columns beside the known ones, float32 ``[R]`` each; NaN where unknown."""
    found = {}
    for name in table.columns:
        if name not in known:
            values = table.array(name, number_or_unknown, "a finite number", cure)
            found[name] = torch.from_numpy(values).to(torch.float32)
    return found


def _coded(values: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """Return each value's place among the distinct ones, int64, and these in alphabetical order."""
    names = tuple(sorted(set(values)))
    place = {name: index for index, name in enumerate(names)}
    return torch.tensor([place[value] for value in values]), names


def _groups(
    users: Table | None, user_ids: Sequence[str], group_by: str
) -> tuple[Tensor, tuple[str, ...]]:
    """Return each user's group, int64 ``[U]``, and the groups' names in alphabetical order."""
    if users is None or group_by not in users:
        return torch.zeros(len(user_ids), dtype=torch.int64), ("all",)
    if group_by == "age":
        ages = users.parse("age", number_or_unknown, "a number or empty")
        values = [_age_band(age) for age in ages]
    else:
        values = [value or _NO_GROUP for value in users.columns[group_by]]
    of_user = dict(zip(users.columns["user_id"], values, strict=True))
    return _coded([of_user[user] for user in user_ids])


def _age_band(age: float) -> str:
    if math.isnan(age):
        return _NO_GROUP
    return next((name for bound, name in _AGE_BANDS if age < bound), _OLDEST)


def _user_attributes(users: Table | None, user_ids: Sequence[str]) -> dict[str, Tensor]:
    """Return the columns of the users' file that hold numbers only, float32 ``[U]`` each.

    Raises:
        DataError: a column of :data:`_NUMERIC_ATTRIBUTES` has a cell that is no number.
    """
    if users is None:
        return {}
    row = {user: place for place, user in enumerate(users.columns["user_id"])}
    rows = torch.tensor([row[user] for user in user_ids])
    found = {}
    for name in [name for name in users.columns if name != "user_id"]:
        if name in _NUMERIC_ATTRIBUTES:
            numbers = users.numbers(name)
        else:
            try:
                numbers = users.array(name, number_or_unknown, "a number or empty")
            except DataError:
                continue  # words, such as a gender
        values = torch.from_numpy(numbers).to(torch.float32)
        if not bool(values.isnan().all()):
            found[name] = values[rows]
    return found


def _combined_hash(sources: dict[str, str]) -> str:
    """Return one SHA-256 for several files' names and hashes."""
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(sources.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _impressions(
    table: Table,
    user_place: dict[str, int],
    item_place: dict[str, int],
    items: Path,
    config: DataConfig,
) -> tuple[Impressions, str | None]:
    """Return the impressions of a table by user, time, position and item, and how times were read.

    Raises:
        DataError: bad cells, an unknown item, nothing at position 0, or a behaviour without a
            click.
    """
    item = table.places("item_id", item_place, items)
    user = table.places("user_id", user_place, table.path)
    places = table.array("position", _position, "a whole number from 0 on")
    position = torch.from_numpy(places)
    if not bool((position == 0).any()):
        raise DataError(f"{table.path}: no impression at position 0; positions count from 0")
    click = torch.from_numpy(table.array("click", _event, "0 or 1")).to(torch.float32)
    behaviours = {"click": click}
    for name, values in _further(table, (*_IMPRESSIONS, _PROPENSITY), _WORDS).items():
        stray = ((values != 0) & ~values.isnan() & (click == 0)).nonzero().squeeze(1).tolist()
        if stray:
            raise table.fail(stray, f"'{name}' must be 0 where 'click' is 0")
        behaviours[name] = torch.where(click == 0, 0.0, values)
    known = np.full(len(table), math.nan)
    if _PROPENSITY in table:
        known = table.array(_PROPENSITY, _probability, "in (0, 1], or empty if unknown")
    times = read_times(table, "timestamp", config.time_unit)
    order = lexicographic(item, position, times.exact, times.seconds, user)
    return Impressions(
        user=user[order],
        item=item[order],
        time=times.seconds[order],
        position=position[order],
        propensity=torch.from_numpy(known).to(torch.float32)[order],
        behaviours={name: values[order] for name, values in behaviours.items()},
    ), times.note


def _friends(table: Table, user_place: dict[str, int]) -> Tensor:
    """Return pairs of different users, each both ways, in order and once, int64 ``[F, 2]``; those
    of whom one has neither interaction nor impression are left out, and counted.
    """
    named = zip(*(table.identifiers(name) for name in _FRIENDS), strict=True)
    known = [pair for pair in named if pair[0] in user_place and pair[1] in user_place]
    if len(known) < len(table):
        left = len(table) - len(known)
        table.notes.append(
            f"{table.path.name}: {left:,} of {len(table):,} pairs are left out: "
            "one of the two is no user of the log"
        )
    pairs = torch.tensor([[user_place[one] for one in pair] for pair in known], dtype=torch.int64)
    pairs = pairs.view(-1, 2)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    found: Tensor = torch.unique(torch.cat([pairs, pairs.flip(1)]), dim=0)
    return found


def _position(cell: str) -> int:
    value = whole(cell)
    if value > _LAST_POSITION:
        raise UnfitError(f"a whole number from 0 to {_LAST_POSITION:,}")
    if value < 0:
        raise ValueError(cell)
    return value


def _event(cell: str) -> float:
    value = whole(cell)
    if value not in (0, 1):
        raise ValueError(cell)
    return float(value)


def _probability(cell: str) -> float:
    value = number_or_unknown(cell)
    if value <= 0.0 or value > 1.0:  # false for NaN: unknown
        raise ValueError(cell)
    return value
