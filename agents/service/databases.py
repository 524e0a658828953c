"""Where a service keeps its sessions: a file of SQLite, or a schema of a PostgreSQL database.

Here is what the two do differently; the tables, and what is done with them, are those of
:mod:`agents.service.store`.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from agents.service.config import Replica
from marec_env.errors import ConfigError, RunError

if TYPE_CHECKING:
    from agents.service.postgres import PostgreSQL


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema of a PostgreSQL database; has a name as a file has."""

    url: str = field(repr=False)
    """May hold a password."""
    name: str = "marec"

    def with_name(self, name: str) -> Schema:
        """Return another schema of the database."""
        return replace(self, name=name)

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return f"schema {self.name} of postgresql://{parts.hostname or ''}{parts.path}"


Place = Path | Schema


def place_of(database: str) -> Place:
    """Return the place of ``FILE``, ``sqlite:///FILE`` or ``postgresql://...``.

    Raises:
        ConfigError: it is another kind of database.
    """
    kind, separator, rest = database.partition("://")
    if not separator:
        return Path(database)
    if kind == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return Path(rest[1:])
    if kind in ("postgresql", "postgres"):
        with suppress(ValueError):
            urlsplit(database)
            return Schema(database)
        raise ConfigError("--database: it is no URL; postgresql://USER@HOST/DATABASE is one")
    cure = "name a file, such as service.sqlite, or postgresql://HOST/DATABASE"
    if kind in ("redis", "rediss"):
        raise ConfigError(
            f"--database: {kind} is not supported, since an answer is given when all of its batch "
            f"is on disk and Redis writes there later, or each command alone; {cure}"
        )
    raise ConfigError(f"--database: {kind}:// is no database that marec knows; {cure}")


def replica_place(database: Place, replica: Replica) -> Place:
    """Return where a replica keeps its sessions."""
    if replica.count == 1:
        return database
    return database.with_name(f"{database.name}-{replica.number + 1}-of-{replica.count}")


def places_of(database: Place) -> list[Place]:
    """Return the files or schemas that there are of a database: one, or one for each replica.

    Raises:
        RunError: its server cannot be reached.
    """
    if isinstance(database, Path):
        folder = database.parent
        there = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    else:
        kind = kind_of(database)
        with usable(database, kind.error), closing(kind(database, read=True)) as db:
            there = [name for (name,) in db.execute("SELECT nspname FROM pg_namespace")]
    known = re.compile(rf"{re.escape(database.name)}(-\d+-of-\d+)?")
    return [database.with_name(name) for name in sorted(there) if known.fullmatch(name)]


def check_places(database: Place, replicas: int) -> None:
    """Refuse a database that another number of replicas has written: sessions have one owner.

    Raises:
        ConfigError: it is such.
    """
    own = {replica_place(database, Replica(number, replicas)) for number in range(replicas)}
    for place in places_of(database):
        if place not in own:
            raise ConfigError(
                f"--replicas {replicas}: {place} was written by another number of replicas; start "
                "as many, or name another --database"
            )


def kind_of(place: Place) -> type[SQLite] | type[PostgreSQL]:
    """Return what connects to a place.

    Raises:
        ConfigError: it needs a package that is not installed.
    """
    if isinstance(place, Path):
        return SQLite
    from agents.service.postgres import PostgreSQL

    return PostgreSQL


@contextmanager
def usable(place: Place, error: type[Exception]) -> Iterator[None]:
    """Within, a database's error is told as what is wrong with the place."""
    try:
        yield
    except error as found:
        line = " ".join(str(found).split())
        raise RunError(f"{place} cannot be used as a database: {line}") from found


class SQLite:
    """A file with a write-ahead log, written by one service at a time."""

    error = sqlite3.Error
    blob = "BLOB"
    sequence = "INTEGER PRIMARY KEY AUTOINCREMENT"
    end = " WITHOUT ROWID"
    """Of a table that is looked up by its key."""
    number = "?"
    """A sequence number that is given, or ``None`` for the next."""
    attributes = "json_extract(past, '$.attributes')"
    items = "json_group_array(item)"

    def __init__(self, file: Place, *, synchronous: str = "full", read: bool = False) -> None:
        """Args: as of :class:`agents.service.store.Store`."""
        assert isinstance(file, Path)
        self._lock = None if read else _locked(file)
        if read:
            place = f"file:{file.resolve()}?mode=ro"
            self._db = sqlite3.connect(place, uri=True, check_same_thread=False)
            return
        self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        os.chmod(file, 0o600)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(f"PRAGMA synchronous={synchronous.upper()}")
        self._db.execute("PRAGMA foreign_keys=ON")
        self._db.execute("PRAGMA secure_delete=ON")

    def execute(self, query: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Do something; question marks stand for values."""
        return self._db.execute(query, values)

    def executemany(self, query: str, rows: Iterable[Sequence[Any]]) -> None:
        """Do it for each row of values."""
        self._db.executemany(query, rows)

    def script(self, queries: str) -> None:
        """Do several things."""
        self._db.executescript(queries)

    def tables(self) -> set[str]:
        """Return the tables that there are."""
        return {name for (name,) in self._db.execute("SELECT name FROM sqlite_master")}

    def begin(self) -> None:
        """Open a transaction."""
        self._db.execute("BEGIN IMMEDIATE")

    def rollback(self) -> None:
        """Undo it, if there is one."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def scrub(self) -> None:
        """Let nothing of deleted rows stay in the write-ahead log."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
        if self._lock is not None:
            self._lock.close()


def _locked(file: Path) -> BinaryIO:
    """Return the open lock of a database.

    Raises:
        RunError: another service has it, or the folder cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = open(file.with_name(f"{file.name}.lock"), "wb")  # noqa: SIM115
    except OSError as error:
        raise RunError(f"{file} cannot be used as a database: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise RunError(
            f"{file} is in use by another service; stop it, or name another file"
        ) from error
    return lock


def secret_of(database: Place) -> bytes:
    """Return the key of pseudonyms, made once and kept beside the database, of all replicas."""
    from marec_env.io import write_bytes

    if isinstance(database, Schema):
        from agents.service.postgres import kept_once

        return kept_once(database, secrets.token_hex(32)).encode()
    place = database.with_name(f"{database.name}.key")
    if not place.exists():
        new = place.with_name(f"{place.name}.{secrets.token_hex(6)}")
        write_bytes(new, secrets.token_hex(32).encode())
        new.chmod(0o600)
        with suppress(FileExistsError):  # another replica was first
            os.link(new, place)
        new.unlink()
    return place.read_bytes()
