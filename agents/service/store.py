"""Sessions, slates and events on disk, one transaction a batch: SQLite, or PostgreSQL.

What has been committed survives a killed process (``synchronous: full``: a power failure too). In
SQLite deleted rows are overwritten, and leave the write-ahead log at once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agents.service.config import Replica
from agents.service.databases import Place, kind_of, replica_place, usable
from marec_env.errors import RunError

SCHEMA = 1
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_TABLES = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT){end};
CREATE TABLE sessions(
    id TEXT PRIMARY KEY, "user" TEXT, policy TEXT NOT NULL, version TEXT NOT NULL,
    created DOUBLE PRECISION NOT NULL, active DOUBLE PRECISION NOT NULL, key BIGINT NOT NULL,
    past TEXT NOT NULL, state {blob} NOT NULL
){end};
CREATE INDEX sessions_of_user ON sessions("user");
CREATE INDEX sessions_by_activity ON sessions(active);
CREATE TABLE slates(
    sequence {sequence},
    session TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, number BIGINT NOT NULL,
    time DOUBLE PRECISION NOT NULL, policy TEXT NOT NULL, version TEXT NOT NULL,
    items TEXT NOT NULL, channels TEXT, blocks {blob}, log_propensity TEXT NOT NULL, decisions TEXT,
    UNIQUE(session, number)
);
CREATE TABLE events(
    session TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, id TEXT NOT NULL,
    number BIGINT NOT NULL, item TEXT NOT NULL, type TEXT NOT NULL, value DOUBLE PRECISION,
    time DOUBLE PRECISION NOT NULL, PRIMARY KEY(session, id)
){end};
"""


@dataclass(slots=True)
class KeptSession:
    """A session as it is kept."""

    id: str
    user: str | None
    policy: str
    version: str
    created: float
    key: int
    past: dict[str, Any]
    """``history`` and ``liked``, ``group``, ``limits``."""
    state: bytes = b""


@dataclass(slots=True)
class KeptSlate:
    """A slate as it is kept."""

    number: int
    time: float
    policy: str
    version: str
    items: list[str]
    channels: list[str] | None
    blocks: bytes | None
    log_propensity: dict[str, Any]
    decisions: dict[str, Any] | None


@dataclass(slots=True)
class Event:
    """What a user did to an item of a slate."""

    id: str
    number: int
    item: str
    type: str
    value: float | None
    time: float


@dataclass(slots=True)
class Exposure:
    """A slate with what was clicked on it, for estimates and training."""

    sequence: int
    session: str
    user: str | None
    attributes: dict[str, float]
    """The user's own limits."""
    slate: KeptSlate
    clicked: set[str]
    closed: bool
    """Whether its session asked for another slate since."""


class Store:
    """One file or schema, written by one service at a time; others may read it meanwhile."""

    def __init__(
        self,
        database: Place,
        *,
        synchronous: str = "full",
        read: bool = False,
        replica: Replica = Replica(),  # noqa: B008  (frozen)
    ) -> None:
        """Open a database, or make it.

        Args:
            database: its file or schema; of one of several replicas the one that its own is named
                after.
            replica: whose it is. Of several, slates are numbered by the time in microseconds, each
                replica's in a residue class of its own, so that logs can be joined.
            synchronous: see :class:`agents.service.config.ServiceConfig`.
            read: only look at it, which goes beside a service at work.

        Raises:
            RunError: it cannot be opened, is none of marec's, of another version's, or in use.
        """
        self.database = database
        self.file = replica_place(database, replica)
        self._replica, self._last = replica, 0
        kind = kind_of(self.file)
        self.error: type[Exception] = kind.error
        with usable(self.file, kind.error):
            self._db = kind(self.file, synchronous=synchronous, read=read)
            self._prepare(read)

    def _prepare(self, read: bool) -> None:
        db, tables = self._db, self._db.tables()
        if not tables and not read:
            made = _TABLES.format(blob=db.blob, sequence=db.sequence, end=db.end)
            db.script(f"BEGIN; {made} INSERT INTO meta VALUES('schema', '{SCHEMA}'); COMMIT;")
            return
        if "meta" not in tables:
            raise RunError(f"{self.file} is a database of something else; name another one")
        [found] = db.execute("SELECT value FROM meta WHERE name='schema'").fetchone() or [None]
        if str(found) != str(SCHEMA):
            raise RunError(
                f"{self.file} has format {found}; this version of marec reads {SCHEMA}: update "
                "marec, or begin another database"
            )

    def close(self) -> None:
        """Let go of it."""
        self._db.close()

    # ------------------------------------------------------------------ transactions

    def begin(self) -> None:
        """Open a transaction."""
        self._db.begin()

    def commit(self) -> None:
        """Put all that was written since :meth:`begin` on disk."""
        self._db.execute("COMMIT")

    def rollback(self) -> None:
        """Undo it."""
        self._db.rollback()

    def scrub(self) -> None:
        """Let nothing of deleted rows stay on disk, where the database can do that."""
        self._db.scrub()

    # ------------------------------------------------------------------ writing

    def add_sessions(self, sessions: Iterable[KeptSession]) -> None:
        """Keep new sessions."""
        self._db.executemany(
            "INSERT INTO sessions VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (s.id, s.user, s.policy, s.version, s.created, s.created, s.key, *_json(s.past),
                 s.state)
                for s in sessions
            ],
        )  # fmt: skip

    def add_slates(self, slates: Iterable[tuple[str, KeptSlate, bytes]]) -> None:
        """Keep slates, each with its session's id and the session's state after it."""
        rows = [*slates]
        self._db.executemany(
            f"INSERT INTO slates VALUES({self._db.number}, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (self._sequence(), session, s.number, s.time, s.policy, s.version,
                 *_json(s.items, s.channels), s.blocks, *_json(s.log_propensity, s.decisions))
                for session, s, _ in rows
            ],
        )  # fmt: skip
        self._db.executemany(
            "UPDATE sessions SET active=?, policy=?, version=?, state=? WHERE id=?",
            [(s.time, s.policy, s.version, state, session) for session, s, state in rows],
        )

    def horizon(self) -> int:
        """Return a number below those of all slates to come, of one of several replicas."""
        if not self._last:
            [found] = self._db.execute("SELECT max(sequence) FROM slates").fetchone() or [None]
            self._last = found or 0
        self._last = max(self._last, time.time_ns() // 1000 - 1)
        return self._last

    def _sequence(self) -> int | None:
        """Return the number of the next slate; ``None``: the next that is free."""
        number, count = self._replica.number, self._replica.count
        if count == 1:
            return None
        first = self.horizon() + 1
        self._last = first + (number - first) % count
        return self._last

    def add_events(self, session: str, events: Sequence[Event]) -> list[Event]:
        """Keep events, and return those that were not known by their id."""
        new = []
        for event in events:
            done = self._db.execute(
                "INSERT INTO events VALUES(?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (session, event.id, event.number, event.item, event.type, event.value, event.time),
            )
            if done.rowcount:
                new.append(event)
        if new:
            self._db.execute("UPDATE sessions SET active=? WHERE id=?", (time.time(), session))
        return new

    def delete(self, where: str, value: str | float) -> tuple[list[str], dict[str, int]]:
        """Delete sessions with all that belongs to them.

        Args:
            where: ``id = ?``, ``"user" = ?`` or ``active < ?``.
            value: for the question mark.

        Returns:
            Their ids, and how many sessions, requests and events there were.
        """
        of = f"SELECT id FROM sessions WHERE {where}"
        ids = [name for (name,) in self._db.execute(of, (value,))]
        counts = {"sessions": len(ids)}
        for name, table in (("requests", "slates"), ("events", "events")):
            query = f"SELECT count(*) FROM {table} WHERE session IN ({of})"
            [counts[name]] = self._db.execute(query, (value,)).fetchone() or [0]
        self._db.execute(f"DELETE FROM sessions WHERE {where}", (value,))
        return ids, counts

    # ------------------------------------------------------------------ reading

    def session(self, name: str) -> KeptSession | None:
        """Return a session, if it is known."""
        found = self._db.execute(
            'SELECT id, "user", policy, version, created, key, past, state FROM sessions '
            "WHERE id=?",
            (name,),
        ).fetchone()
        if found is None:
            return None
        identity, user, policy, version, created, key, past, state = found
        return KeptSession(identity, user, policy, version, created, key, json.loads(past), state)

    def slates(self, session: str) -> list[KeptSlate]:
        """Return a session's slates, oldest first."""
        rows = self._db.execute(
            "SELECT number, time, policy, version, items, channels, blocks, log_propensity, NULL "
            "FROM slates WHERE session=? ORDER BY number",
            (session,),
        )
        return [_slate(row) for row in rows]

    def events(self, session: str) -> list[Event]:
        """Return a session's events, by time."""
        rows = self._db.execute(
            "SELECT id, number, item, type, value, time FROM events WHERE session=? ORDER BY time",
            (session,),
        )
        return [Event(*row) for row in rows]

    def exposures(self, after: int = 0, limit: int = 1000) -> Iterator[Exposure]:
        """Yield slates in the order in which they were shown, with what was clicked on them.

        Args:
            after: the ``sequence`` of the last one that is known already.
            limit: how many.
        """
        rows = self._db.execute(
            f'SELECT s.sequence, s.session, t."user", {self._db.attributes}, '
            "s.number, s.time, s.policy, s.version, "
            "s.items, s.channels, s.blocks, s.log_propensity, s.decisions, "
            f"(SELECT {self._db.items} FROM events e WHERE e.session = s.session AND "
            "e.number = s.number AND e.type = 'click'), "
            "EXISTS(SELECT 1 FROM slates n WHERE n.session = s.session AND "
            "n.number = s.number + 1) FROM slates s JOIN sessions t ON t.id = s.session "
            "WHERE s.sequence > ? ORDER BY s.sequence LIMIT ?",
            (after, limit),
        ).fetchall()
        for sequence, session, user, limits, *slate, clicked, closed in rows:
            yield Exposure(
                sequence, session, user, json.loads(limits), _slate(slate),
                set(json.loads(clicked)), bool(closed),
            )  # fmt: skip


def _json(*values: Any) -> tuple[str | None, ...]:
    return tuple(None if value is None else _ENCODER.encode(value) for value in values)


def _slate(row: Sequence[Any]) -> KeptSlate:
    number, moment, policy, version, items, channels, blocks, propensity, decisions = row
    return KeptSlate(
        number,
        moment,
        policy,
        version,
        json.loads(items),
        None if channels is None else json.loads(channels),
        blocks,
        json.loads(propensity),
        None if decisions is None else json.loads(decisions),
    )
