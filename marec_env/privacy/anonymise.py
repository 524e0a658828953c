"""A log that is safer to share: other names, coarser facts, fewer events; and users taken out.

What comes out is pseudonymous and not anonymous: events themselves single users out
(:mod:`marec_env.privacy.uniqueness`), and who holds the key can name everybody again.
"""

from __future__ import annotations

import csv
import hmac
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_low

from marec_env.data.config import DataConfig
from marec_env.data.movielens import movielens_tables
from marec_env.data.tables import Table, number_or_unknown, read_table
from marec_env.data.times import read_times
from marec_env.errors import ConfigError, DataError
from marec_env.io import write_text
from marec_env.privacy.mechanisms import KEY_VARIABLE, SHORTEST_KEY

_DIGITS = 16  # hexadecimal, of a pseudonym: two of a million users share one once in 10^7 keys
_DAY = 86_400  # seconds
_USER_FILES = ("interactions.csv", "users.csv", "impressions.csv")
_FRIENDS = "friends.csv"
_LOWEST = frozenset({"risk_limit"})
"""Attributes of which a group gets its lowest: a limit must not rise."""


@dataclass(frozen=True, slots=True)
class Coarsening:
    """How much of a log is kept."""

    days: int = 7
    """Times are the beginnings of so many days; 0: kept as they are."""
    events: int = 200
    """Events kept of a user, drawn by the key; 0: all."""
    k: int = 5
    """Users who share each combination of attributes, and who consumed each item, at least."""
    keep: tuple[str, ...] = ()
    """Further columns of interactions to keep; exact amounts single users out."""


@dataclass
class Anonymised:
    """What was taken out, by what it was: counts for those who read the log."""

    counts: dict[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return one line each of what was left out."""
        return [f"{number:,} {what}" for what, number in self.counts.items() if number]


def secret_key(path: Path | None) -> bytes:
    """Return the key of pseudonyms: a file's content, or ``MAREC_PRIVACY_KEY``.

    Raises:
        ConfigError: there is none, it cannot be read, or it is too short to be one.
    """
    place = KEY_VARIABLE if path is None else str(path)
    try:
        found = os.environ.get(KEY_VARIABLE, "") if path is None else path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the key in {path}: {error}") from error
    found = found.strip()
    if len(found) < SHORTEST_KEY:
        raise ConfigError(
            f"{place}: {len(found)} characters of a key; at least {SHORTEST_KEY} are needed, for "
            "example: openssl rand -hex 32 > key.txt, and --key-file key.txt"
        )
    return found.encode()


def pseudonym(key: bytes, identifier: str) -> str:
    """Return a user's name under a key: HMAC-SHA-256, cut to 64 bits."""
    return hmac.digest(key, f"user\0{identifier}".encode(), "sha256").hex()[:_DIGITS]


def _tables(source: str) -> tuple[Table, Table, Table | None, list[str]]:
    """Return interactions, items and users of a log, and further files of its users."""
    if source == "movielens-100k":
        return (*movielens_tables(), [])
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"'{source}' is no folder of a log; allowed: a folder with interactions.csv and "
            "items.csv, or movielens-100k"
        )
    users = folder / "users.csv"
    return (
        read_table(folder / "interactions.csv", ("user_id", "item_id", "rating", "timestamp")),
        read_table(folder / "items.csv", ("item_id", "title")),
        read_table(users, ("user_id",)) if users.is_file() else None,
        [name for name in ("impressions.csv", _FRIENDS) if (folder / name).is_file()],
    )


def anonymise(source: str, out: Path, key: bytes, plan: Coarsening) -> Anonymised:
    """Write a log without what names its users; items are as they were.

    Args:
        source: a folder in the plain format, or ``movielens-100k``.
        out: a new folder.
        key: of :func:`secret_key`; the same gives the same pseudonyms.
        plan: see the class.

    Raises:
        DataError: the log cannot be read, the folder holds something, or nothing would be left.
        ConfigError: a column to keep is not there.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is there already; name a new folder")
    interactions, items, users, further = _tables(source)
    told = Anonymised()
    for name in plan.keep:
        if name not in interactions:
            raise ConfigError(f"--keep {name}: no column of {interactions.path}")
    people, things = interactions.identifiers("user_id"), interactions.identifiers("item_id")
    rows = [*range(len(people))]
    if plan.k > 1:
        consumers = Counter(item for _, item in {*zip(people, things, strict=True)})
        rows = [row for row in rows if consumers[things[row]] >= plan.k]
        told.counts[f"events of items that fewer than {plan.k} users consumed"] = len(people) - len(
            rows
        )
    names = {person: pseudonym(key, person) for person in set(people)}
    if len(set(names.values())) < len(names):
        raise ConfigError("two users have one pseudonym under this key; take another key")
    if plan.events:
        before = len(rows)
        rows = _capped(rows, people, things, key, plan.events)
        told.counts[f"events beyond {plan.events} of a user"] = before - len(rows)
    if not rows:
        raise DataError(f"{source}: no event would be left; lower k")
    times = read_times(interactions, "timestamp", DataConfig().time_unit).seconds.tolist()
    step = plan.days * _DAY
    columns = {name: interactions.columns[name] for name in ("rating", *plan.keep)}
    kept = [
        (
            names[people[row]],
            things[row],
            columns["rating"][row],
            str(times[row] // step * step if step else times[row]),
            *(columns[name][row] for name in plan.keep),
        )
        for row in rows
    ]
    known = ("user_id", "item_id", "rating", "timestamp", *plan.keep)
    told.counts["further columns of events"] = len(interactions.columns.keys() - set(known))
    # Sorted by the new names: the order of rows would else be that of the source.
    _write(out / "interactions.csv", known, sorted(kept, key=lambda row: (row[0], row[3], row[1])))
    _write(out / "items.csv", [*items.columns], zip(*items.columns.values(), strict=True))
    if users is not None:
        there = {people[row] for row in rows}
        _write_users(out / "users.csv", users, there, names, plan.k, told)
    for name in further:  # who was shown what, and who knows whom, single users out at once
        told.counts[f"file: {name}"] = 1
    return told


def _capped(
    rows: Sequence[int], people: Sequence[str], things: Sequence[str], key: bytes, most: int
) -> list[int]:
    """Return the rows without those beyond ``most`` of a user, drawn under the key."""
    mine: dict[str, list[int]] = {}
    for row in rows:
        mine.setdefault(people[row], []).append(row)
    kept: list[int] = []
    for person, found in mine.items():
        if len(found) > most:
            draws = {
                row: hmac.digest(key, f"event\0{person}\0{things[row]}\0{place}".encode(), "sha256")
                for place, row in enumerate(found)
            }
            found = sorted(found, key=lambda row: draws[row])[:most]
        kept += found
    return kept


def _write_users(
    path: Path,
    users: Table,
    there: set[str],
    names: Mapping[str, str],
    k: int,
    told: Anonymised,
) -> None:
    rows = [row for row, person in enumerate(users.unique("user_id")) if person in there]
    attributes = [name for name in users.columns if name != "user_id"]
    cells = {name: [users.columns[name][row] for row in rows] for name in attributes}
    if k > 1:
        cells, hidden, coarser = k_anonymous(cells, k)
        told.counts["attributes' cells suppressed"] = hidden
        told.counts["attributes' cells made coarser"] = coarser
    new = [names[users.columns["user_id"][row]] for row in rows]
    _write(path, ("user_id", *attributes), sorted(zip(new, *cells.values(), strict=True)))


def k_anonymous(
    cells: Mapping[str, Sequence[str]], k: int
) -> tuple[dict[str, list[str]], int, int]:
    """Return columns in which every combination of cells is shared by ``k`` rows at least, and how
    many cells were emptied or changed.

    Rows are split along the column that differs most, at its median, while both parts have ``k``
    (K. LeFevre, D. DeWitt and R. Ramakrishnan, "Mondrian multidimensional k-anonymity", ICDE 2006).
    Of numbers a part gets the median, of words what all share, or nothing.

    Raises:
        DataError: there are fewer than ``k`` rows.
    """
    count = len(next(iter(cells.values()), ()))
    if cells and count < k:
        raise DataError(f"{count} users cannot be {k}-anonymous; lower k")
    numeric = {name: _is_numeric(column) for name, column in cells.items()}
    values = {name: _ranked(column, numeric[name]) for name, column in cells.items()}
    result = {name: list(column) for name, column in cells.items()}
    hidden = coarser = 0
    waiting = [list(range(count))] if cells else []
    while waiting:
        part = waiting.pop()
        if (halves := _split(part, values, k)) is not None:
            waiting += halves
            continue
        for name, column in cells.items():
            shared = _shared([column[row] for row in part], name, numeric[name])
            for row in part:
                hidden += bool(column[row] and not shared)
                coarser += bool(shared and column[row] != shared)
                result[name][row] = shared
    return result, hidden, coarser


def _is_numeric(column: Sequence[str]) -> bool:
    try:
        return bool([number_or_unknown(cell) for cell in column])
    except ValueError:
        return False


def _ranked(column: Sequence[str], numeric: bool) -> list[float]:
    """Return numbers over their range, or the ranks of words over their number."""
    if numeric:
        found = [number_or_unknown(cell) for cell in column]
    else:
        places = {cell: place for place, cell in enumerate(sorted(set(column)))}
        found = [float(places[cell]) for cell in column]
    known = [value for value in found if value == value]
    low, high = min(known, default=0.0), max(known, default=0.0)
    span = (high - low) or 1.0
    return [(value - low) / span if value == value else -1.0 for value in found]


def _split(
    part: Sequence[int], values: Mapping[str, Sequence[float]], k: int
) -> list[list[int]] | None:
    spans = {
        name: max(column[row] for row in part) - min(column[row] for row in part)
        for name, column in values.items()
    }
    for name in sorted(spans, key=lambda name: (-spans[name], name)):
        column = values[name]
        ordered = sorted(column[row] for row in part)
        for cut in dict.fromkeys((ordered[len(part) // 2], median_low(ordered))):
            halves: list[list[int]] = [[], []]
            for row in part:
                halves[column[row] >= cut].append(row)
            if min(map(len, halves)) >= k:
                return halves
    return None


def _shared(part: Sequence[str], name: str, numeric: bool) -> str:
    """Return what stands for all cells of a part."""
    if len(set(part)) == 1:
        return part[0]
    numbers = {cell: number_or_unknown(cell) for cell in part} if numeric else {}
    if not numeric or any(value != value for value in numbers.values()):
        return ""
    ordered = sorted(part, key=lambda cell: (numbers[cell], cell))
    return ordered[0] if name in _LOWEST else ordered[(len(ordered) - 1) // 2]


def forget(folder: Path, users: Sequence[str]) -> dict[str, int]:
    """Take users out of a log's files; return how many rows each file lost.

    The log is then as if they had never been in it, and so is all that is made of it: nothing that
    marec keeps between runs beside the log holds users (embeddings are of items).

    Raises:
        DataError: the folder is no log's, or a user is in none of its files.
    """
    gone, lost, met = set(users), dict[str, int](), set[str]()
    if not (folder / "interactions.csv").is_file():
        raise DataError(f"{folder}: no log: it has no interactions.csv")
    written: dict[str, tuple[list[str], list[list[str]]]] = {}
    for name in (*_USER_FILES, _FRIENDS):
        if not (folder / name).is_file():
            continue
        with (folder / name).open(encoding="utf-8-sig", newline="") as stream:
            header, *rows = csv.reader(stream)
        places = [place for place, cell in enumerate(header) if _names_user(cell, name)]
        mine = [any(row[p].strip() in gone for p in places) if row else False for row in rows]
        met |= {row[p].strip() for row, one in zip(rows, mine, strict=True) if one for p in places}
        lost[name] = sum(mine)
        written[name] = header, [r for r, one in zip(rows, mine, strict=True) if r and not one]
    if missing := sorted(gone - met):
        raise DataError(f"{folder}: no user '{missing[0]}' in it; identifiers are compared exactly")
    for name, (header, rows) in written.items():
        _write(folder / name, header, rows)
    return lost


def _names_user(column: str, file: str) -> bool:
    return column.strip() == "user_id" or (file == _FRIENDS and column.strip() == "friend_id")


def _write(path: Path, header: Sequence[str], rows: object) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)  # type: ignore[arg-type]
    write_text(path, text.getvalue())
