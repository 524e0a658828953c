"""Sessions in a PostgreSQL database: what :class:`agents.service.databases.SQLite` does there.

Needs the extra ``postgres`` (psycopg 3). A schema is written by whoever has its advisory lock,
which the server takes back when the connection ends, as at a kill -9.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from agents.service.databases import Place, Schema
from marec_env.errors import ConfigError, RunError

try:
    import psycopg
    from psycopg import pq, sql
except ImportError as missing:  # pragma: no cover
    raise ConfigError(
        "--database: PostgreSQL needs psycopg, which is not installed: pip install "
        "'marec[postgres]'"
    ) from missing

_TIMEOUT = 10  # seconds to a connection
_PATIENCE = "2s"  # for the lock: a server may need a moment to see that a service was killed
_LOCK = b"SELECT pg_advisory_lock(hashtextextended(%s, 0))"
_OPEN = (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)


class PostgreSQL:
    """A connection to a schema, made anew after it was lost; attributes are SQLite's."""

    error = psycopg.Error
    blob = "BYTEA"
    sequence = "BIGINT PRIMARY KEY"
    end = ""
    number = "coalesce(?, nextval('numbers'))"
    attributes = "(past::json -> 'attributes')::text"
    items = "coalesce(json_agg(item), '[]')::text"

    def __init__(self, place: Place, *, synchronous: str = "full", read: bool = False) -> None:
        """Args: as of :class:`agents.service.store.Store`."""
        assert isinstance(place, Schema)
        self._place, self._read = place, read
        self._durable = "on" if synchronous == "full" else "off"
        self._connect()

    def _connect(self) -> None:
        self._db = psycopg.connect(
            self._place.url, autocommit=True, connect_timeout=_TIMEOUT, application_name="marec"
        )
        name = sql.Identifier(self._place.name)
        self._db.execute(sql.SQL("SET search_path TO {}").format(name))
        if self._read:
            self._db.execute("SET default_transaction_read_only = on")
            return
        self._claim()
        self._db.execute(f"SET synchronous_commit = {self._durable}".encode())
        self._db.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
        self._db.execute("CREATE SEQUENCE IF NOT EXISTS numbers")

    def _claim(self) -> None:
        self._db.execute(f"SET lock_timeout = '{_PATIENCE}'".encode())
        try:
            self._db.execute(_LOCK, [self._place.name])
        except psycopg.errors.LockNotAvailable as error:
            self._db.close()
            raise RunError(
                f"{self._place} is in use by another service; stop it, or name another database"
            ) from error
        self._db.execute("SET lock_timeout = 0")

    def execute(self, query: str, values: Sequence[Any] = ()) -> psycopg.Cursor[Any]:
        """Do something; question marks stand for values."""
        return self._db.execute(_translated(query), [_fit(value) for value in values])

    def executemany(self, query: str, rows: Iterable[Sequence[Any]]) -> None:
        """Do it for each row of values."""
        fitting = [[_fit(value) for value in row] for row in rows]
        with self._db.cursor() as cursor:
            cursor.executemany(_translated(query), fitting)

    def script(self, queries: str) -> None:
        """Do several things."""
        self._db.execute(queries.encode())

    def tables(self) -> set[str]:
        """Return the tables that there are."""
        found = self._db.execute("SELECT tablename FROM pg_tables WHERE schemaname=current_schema")
        return {name for (name,) in found}

    def begin(self) -> None:
        """Open a transaction; after a lost connection, on a new one."""
        if self._db.closed:
            self._connect()
        self._db.execute("BEGIN")

    def rollback(self) -> None:
        """Undo it, if there is one."""
        if self._db.info.transaction_status in _OPEN:
            self._db.execute("ROLLBACK")

    def scrub(self) -> None:
        """What was deleted stays in the server's files until it has cleaned them up."""

    def close(self) -> None:
        """Let go of the schema."""
        self._db.close()


def _translated(query: str) -> bytes:
    return query.replace("?", "%s").encode()


def _fit(value: Any) -> Any:
    """Return a value as the server takes it: texts without the sign of number 0, which ends texts
    there, and which a client may send.
    """
    return value.replace("\0", "\N{SYMBOL FOR NULL}") if isinstance(value, str) else value


def kept_once(place: Schema, value: str) -> str:
    """Return the value that was first kept beside a schema, which is this one if there was none."""
    table = sql.Identifier(f"{place.name}-key"), sql.Identifier("key")
    with psycopg.connect(place.url, connect_timeout=_TIMEOUT) as db:  # one transaction
        db.execute(_LOCK.replace(b"lock(", b"xact_lock("), [f"{place.name}-key"])
        db.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(table[0]))
        at = sql.SQL("{}.{}").format(*table)
        db.execute(sql.SQL("CREATE TABLE IF NOT EXISTS {}(value TEXT)").format(at))
        found = db.execute(sql.SQL("SELECT value FROM {}").format(at)).fetchone()
        if found is None:
            db.execute(sql.SQL("INSERT INTO {} VALUES(%s)").format(at), [value])
            return value
    return str(found[0])
