"""Sessions are kept alike in SQLite and in PostgreSQL, by one service at a time."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from agents.service.app import make_app
from agents.service.config import Replica, ServiceConfig
from agents.service.databases import Place, Schema, check_places, place_of, places_of
from agents.service.desk import Desk
from agents.service.store import KeptSession, KeptSlate, Store
from agents.service.worker import Job
from marec_env.errors import ConfigError, RunError


def test_names_of_databases() -> None:
    assert place_of("sqlite:///here.sqlite") == place_of("here.sqlite") == Path("here.sqlite")
    place = place_of("postgresql://ann:secret@there:5433/films?sslmode=require")
    assert str(place) == "schema marec of postgresql://there/films"
    assert "secret" not in repr(place)
    with pytest.raises(ConfigError, match="redis is not supported, since an answer is given when"):
        place_of("redis://host")
    with pytest.raises(ConfigError, match="it is no URL; postgresql://USER@HOST/DATABASE is one"):
        place_of("postgresql://ann:secret@[here/films")
    with pytest.raises(ConfigError, match="mysql:// is no database that marec knows; name a file"):
        place_of("mysql://host/x")


def test_databases_that_cannot_be_used(database: Place) -> None:
    store = Store(database)
    with pytest.raises(RunError, match="is in use by another service"):
        Store(database)
    Store(database, read=True).close()
    store._db.execute("UPDATE meta SET value='9' WHERE name='schema'")
    store.close()
    with pytest.raises(RunError, match="has format 9; this version of marec reads 1"):
        Store(database)


def test_what_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "two.sqlite").write_text("not a database, but long enough to be taken for one " * 9)
    with pytest.raises(RunError, match="cannot be used as a database"):
        Store(tmp_path / "two.sqlite")
    pytest.importorskip("psycopg")
    nowhere = Schema(f"postgresql://marec@/postgres?host={tmp_path}")
    with pytest.raises(RunError, match=r"schema marec of postgresql:///postgres cannot be used"):
        Store(nowhere)


def test_idle_sessions_expire(folder: Path, database: Place) -> None:
    store = Store(database)
    service = Desk([folder], store, ServiceConfig(retention_days=1))
    service._open([job := _opening()])
    store._db.execute("UPDATE sessions SET active = active - 100000")
    service._open([kept := _opening()])
    assert service._expire()["deleted"]["sessions"] == 1
    left = [name for (name,) in store._db.execute("SELECT id FROM sessions")]
    assert left == [kept.result["session"]] != [job.result["session"]]
    store.close()


def _opening() -> Job:
    empty = {"user": None, "history": [], "feedback": None, "group": None, "attributes": {}}
    return Job("open", None, {**empty, "policy": None, "seed": None})


def played(client: TestClient) -> tuple[str, list[Any]]:
    """Return the name of a session, and what was told of it."""
    told = list[Any]()

    def ask(method: str, path: str, **body: Any) -> Any:
        answer = client.request(method, path, json=body)
        told.append((answer.status_code, answer.json()))
        return answer.json()

    begun = {"user": "ann \0 o", "history": ["i3", "i4"], "seed": 7}
    session = ask("POST", "/sessions", **begun)["session"]
    for number in range(3):
        slate = ask("POST", f"/sessions/{session}/recommendations")
        item = slate["items"][number]["item"]
        one = {"id": "a\0", "request": slate["request"], "item": item, "type": "click"}
        two = {**one, "id": f"b{number}", "type": "watch", "value": 0.25, "time": 1e9 + number}
        for _ in range(2):
            ask("POST", f"/sessions/{session}/events", events=[one, two])
    ask("GET", f"/sessions/{session}")
    ask("GET", "/sessions/un%00known")
    ask("GET", "/log?decisions=true")
    return session, told


def test_kept_alike_and_through_a_restart(folder: Path, database: Place, tmp_path: Path) -> None:
    settings = ServiceConfig(explore=True)
    with TestClient(make_app([folder], tmp_path / "other.sqlite", settings)) as client:
        other, expected = played(client)
    with TestClient(make_app([folder], database, settings)) as client:
        session, told = played(client)
        rows = [found[-1][1]["exposures"] for found in (told, expected)]
        assert (
            [one.pop("sequence") for one in rows[0]]
            == [one.pop("sequence") for one in rows[1]]
            == [1, 2, 3]
        )
        for mine, theirs in zip(*rows, strict=True):
            assert mine.pop("user") != theirs.pop("user")  # each database has a key of its own
            assert sum(mine["clicks"]) == (mine["number"] == 0)
            assert mine.pop("time") != theirs.pop("time")
        for _, found in (*told, *expected):
            found.pop("created", None), found.pop("next", None)
        assert str(told).replace(session, other) == str(expected)
    with TestClient(make_app([folder], database, settings)) as client:
        again = client.post(f"/sessions/{session}/recommendations").json()
        assert again["number"] == 3
        assert client.delete("/users/ann%20%00%20o").json()["deleted"] == {
            "sessions": 1, "requests": 4, "events": 4,
        }  # fmt: skip
        store = client.app.state.desk.store  # type: ignore[attr-defined]
        for table in ("sessions", "slates", "events"):
            assert store._db.execute(f"SELECT * FROM {table}").fetchall() == []


def test_a_lost_connection_loses_nothing(folder: Path, postgresql: str) -> None:
    import psycopg

    with ExitStack() as stack:
        place = Schema(postgresql, "marec-lost")
        client = stack.enter_context(TestClient(make_app([folder], place)))
        session = client.post("/sessions", json={"seed": 1}).json()["session"]
        url = f"/sessions/{session}/recommendations"
        assert client.post(url).json()["number"] == 0
        with psycopg.connect(postgresql) as db:
            db.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        answer = client.post(url)
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "unavailable"
        assert client.post(url).json()["number"] == 1


def test_replicas_of_a_database(database: Place) -> None:
    assert places_of(database) == []
    for number in range(2):
        Store(database, replica=Replica(number, 2)).close()
    assert [place.name for place in places_of(database)] == [
        f"{database.name}-1-of-2", f"{database.name}-2-of-2",
    ]  # fmt: skip
    check_places(database, 2)
    with pytest.raises(ConfigError, match="was written by another number of replicas"):
        check_places(database, 1)


def test_a_replica_numbers_slates_by_time_in_a_class_of_its_own(
    database: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [5_000_000_000]
    monkeypatch.setattr(time, "time_ns", lambda: clock[0])
    stores = [Store(database, replica=Replica(number, 3)) for number in range(3)]
    for store in stores:
        store.add_sessions([KeptSession("a", None, "p", "v", 0.0, 1, {"attributes": {}})])
    slates = [KeptSlate(k, 0.0, "p", "v", ["i"], None, None, {}, None) for k in range(8)]
    stores[1].add_slates([("a", slate, b"") for slate in slates[:4]])
    told = [one.sequence for one in stores[1].exposures()]
    assert told == [5_000_000 + k for k in (2, 5, 8, 11)]  # 1 modulo 3
    assert stores[2].horizon() == 4_999_999
    clock[0] = 1_000_000_000  # a clock that is set back
    horizon = stores[2].horizon()
    for place in (1, 2):
        stores[place].add_slates([("a", slates[5], b"")])
    assert [one.sequence % 3 for one in stores[2].exposures()] == [2]
    assert min(one.sequence for one in stores[2].exposures()) > horizon
    assert [one.sequence for one in stores[1].exposures()][-1] == 5_000_014
    stores[1].close()
    again = Store(database, replica=Replica(1, 3))  # numbers go on
    assert again.horizon() == 5_000_014
    for store in (again, stores[0], stores[2]):
        store.close()
