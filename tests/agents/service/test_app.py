"""The service over HTTP: what it answers, what it refuses, what it keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agents.service.bundle import Bundle, save_bundle
from agents.service.config import ServiceConfig, check_reachable
from marec_env.errors import ConfigError
from tests.agents.service.conftest import history_of, small_team

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from agents.service.app import make_app

MARKUP = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def bundles(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two teams of one catalog, with markup in a title."""
    place = tmp_path_factory.mktemp("served")
    world, policy = small_team()
    first = Bundle.of(world, policy)
    object.__setattr__(first, "titles", (f"{MARKUP} Ünïted", *first.titles[1:]))
    save_bundle(first, place / "mine")
    save_bundle(Bundle.of(world, small_team(seed=1)[1]), place / "other")
    return [place / "mine", place / "other"]


def opened(bundles: list[Path], database: Path, **settings: Any) -> TestClient:
    return TestClient(make_app(bundles, database, ServiceConfig(**settings)))


@pytest.fixture(scope="module")
def client(bundles: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    database = tmp_path_factory.mktemp("db") / "service.sqlite"
    with opened(bundles, database, body_bytes=4096, explore=True) as found:
        yield found


def begun(client: TestClient, **body: Any) -> str:
    answer = client.post("/sessions", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["session"])


def asked(client: TestClient, session: str, **body: Any) -> dict[str, Any]:
    answer = client.post(f"/sessions/{session}/recommendations", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def event(slate: dict[str, Any], place: int, name: str, **more: Any) -> dict[str, Any]:
    item = slate["items"][place]["item"]
    return {"id": name, "request": slate["request"], "item": item, "type": "click", **more}


def test_a_session_from_its_beginning_to_its_deletion(client: TestClient) -> None:
    session = begun(client, history=["i3", "i4"], feedback=[True, False], user="ann")
    first = asked(client, session, details=True)
    assert first["number"] == 0 and len(first["items"]) == 5
    assert set(first["details"]["decisions"]) == set(first["log_propensity"]["actions"])
    events = [event(first, 1, "a"), event(first, 2, "b", type="watch", value=0.5)]
    url = f"/sessions/{session}/events"
    assert client.post(url, json={"events": events}).json() == {
        "accepted": 2, "duplicates": 0, "late": 0,
    }  # fmt: skip
    assert client.post(url, json={"events": events[:1]}).json()["duplicates"] == 1
    state = client.get(f"/sessions/{session}").json()
    assert [item["clicked"] for item in state["slates"][0]["items"]] == [False, True] + [False] * 3
    assert [item["liked"] for item in state["history"]] == [True, False]
    assert state["memory"]["last_rate"] == pytest.approx(0.2)
    assert state["details"] == first["details"]
    second = asked(client, session)
    assert second["number"] == 1 and "details" not in second
    shown = {item["item"] for slate in (first, second) for item in slate["items"]}
    assert len(shown) == 10 and not shown & {"i3", "i4"}
    late = client.post(url, json={"events": [event(first, 0, "c")]}).json()
    assert late == {"accepted": 1, "duplicates": 0, "late": 1}

    log = client.get("/log", params={"decisions": True}).json()
    mine = [one for one in log["exposures"] if one["session"] == session]
    assert [one["clicks"] for one in mine] == [[1, 1, 0, 0, 0], [0] * 5]
    assert [one["closed"] for one in mine] == [True, False]
    assert mine[0]["log_propensity"] == first["log_propensity"]
    assert mine[0]["user"] not in (None, "ann")
    decision = mine[0]["decisions"]["recall_0"]
    assert decision["log_probability"] == first["log_propensity"]["actions"]["recall_0"]
    after = client.get("/log", params={"after": mine[0]["sequence"], "limit": 1}).json()
    assert [one["number"] for one in after["exposures"]] == [1]

    other = begun(client, user="ben")
    assert client.delete("/users/ann").json() == {
        "deleted": {"sessions": 1, "requests": 2, "events": 3}
    }
    assert client.get(f"/sessions/{session}").status_code == 404
    assert client.get(f"/sessions/{other}").status_code == 200
    assert client.delete(f"/sessions/{other}").json()["deleted"]["sessions"] == 1
    assert client.delete("/users/nobody").json()["deleted"]["sessions"] == 0
    begun(client, user="a/b?c")
    assert client.delete("/users/a%2Fb%3Fc").json()["deleted"]["sessions"] == 1


def test_many_sessions_in_one_request(client: TestClient) -> None:
    """A request for many is one for each: slates in their order, refusals in their place."""
    ours, same = ([begun(client, seed=seed, history=["i3"]) for seed in range(3)] for _ in range(2))
    asked_for = [*ours, "nobody<b>", ours[0]]
    answer = client.post("/recommendations", json={"sessions": asked_for, "details": True})
    assert answer.status_code == 200 and "<" not in answer.text
    slates = answer.json()["slates"]
    for place, name in enumerate([*same, same[0]]):
        alone = asked(client, name, details=True)
        found = slates[place if place < 3 else 4]
        for key in ("items", "number", "log_propensity", "details"):
            assert found[key] == alone[key], (place, key)
    assert [slate.get("session") for slate in slates] == [*ours, None, ours[0]]
    assert slates[3]["error"]["code"] == "unknown_session"
    text = client.get("/metrics").text
    assert "marec_batch_requests_sum" in text


def test_reasons_in_a_language(client: TestClient) -> None:
    """The nearest liked item of the answer is the one that the sentence names."""
    session = begun(client, history=["i3", "i4", "i9"], seed=1)
    plain = asked(client, session)
    assert all("reason" not in item for item in plain["items"])
    for language, mark in (("en", "“{}”"), ("zh", "《{}》")):
        items = asked(client, session, language=language)["items"]
        named = 0
        for item in items:
            assert item["reason"].startswith(mark.format(item["title"]))
            near = mark.format(item["nearest"]["title"])
            named += near in item["reason"]
            assert (
                item["channel"] != "cf"
                or item["nearest"]["similarity"] < 0.1
                or (near in item["reason"])
            )
        assert named


def test_nothing_of_a_deleted_user_stays_in_the_files(bundles: list[Path], tmp_path: Path) -> None:
    database = tmp_path / "service.sqlite"
    with opened(bundles, database, pseudonyms=False) as client:
        session = begun(client, user="Zacharias Unverwechselbar", history=["i77"])
        asked(client, session)
        inside = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert b"Zacharias" in inside and session.encode() in inside
        client.delete("/users/Zacharias Unverwechselbar")
        inside = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert b"Zacharias" not in inside and session.encode() not in inside


@pytest.mark.parametrize("explore", [False, True])
def test_sessions_go_on_after_a_restart(bundles: list[Path], tmp_path: Path, explore: bool) -> None:
    """And show what they would have shown without."""

    def played(database: Path, restarts: bool) -> list[dict[str, Any]]:
        shown = []
        with ExitStack() as stack:
            client = stack.enter_context(opened(bundles, database, explore=explore))
            session = begun(client, history=["i3"], seed=5)
            for number in range(3):
                if restarts:
                    stack.close()
                    client = stack.enter_context(opened(bundles, database, explore=explore))
                slate = asked(client, session)
                body = {"events": [event(slate, number, f"{number}")]}
                assert client.post(f"/sessions/{session}/events", json=body).status_code == 200
                shown.append({k: v for k, v in slate.items() if k not in ("request", "session")})
        return shown

    assert played(tmp_path / "a", True) == played(tmp_path / "b", False)


def test_policies_are_swapped_and_sessions_go_on(bundles: list[Path], tmp_path: Path) -> None:
    with opened(bundles, tmp_path / "service.sqlite") as client:
        told = client.get("/policies").json()["policies"]
        assert [(one["name"], one["share"]) for one in told] == [
            ("mine", 1.0), ("other", 0.0), ("static", 0.0),
        ]  # fmt: skip
        session, named = begun(client, history=["i3"]), begun(client, policy="other")
        assert asked(client, session)["policy"] == "mine"
        assert asked(client, named)["policy"] == "other"
        wanted = {"policies": [{"bundle": "other", "share": 1.0}]}
        assert client.put("/policies", json=wanted).status_code == 200
        moved = asked(client, session)
        assert (moved["policy"], moved["number"]) == ("other", 1)
        assert asked(client, named)["number"] == 1
        assert asked(client, begun(client))["policy"] == "other"
        for bundle, message in (("../x", "lies outside"), ("none", "is no bundle")):
            refused = client.put("/policies", json={"policies": [{"bundle": bundle, "share": 1.0}]})
            assert refused.status_code == 422 and message in refused.json()["error"]["message"]
        assert asked(client, session)["number"] == 2
        shares = [{"bundle": "mine", "share": 0.25}, {"bundle": "other", "share": 0.75}]
        client.put("/policies", json={"policies": shares})
        bodies = [client.post("/sessions", json={}).json()["policy"] for _ in range(60)]
        assert 4 <= bodies.count("mine") <= 28  # 15 expected, 3.4 the standard deviation


OTHER = "0" * 32
BAD: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/sessions", b"", 422, "invalid"),
    ("POST", "/sessions", b"{", 400, "malformed"),
    ("POST", "/sessions", b"\xff\xfe", 400, "malformed"),
    ("POST", "/sessions", [], 422, "invalid"),
    ("POST", "/sessions", None, 422, "invalid"),
    ("POST", "/sessions", {"history": "i3"}, 422, "invalid"),
    ("POST", "/sessions", {"history": [3]}, 422, "invalid"),
    ("POST", "/sessions", {"history": [None]}, 422, "invalid"),
    ("POST", "/sessions", {"history": [MARKUP]}, 422, "invalid"),
    ("POST", "/sessions", {"history": [""]}, 422, "invalid"),
    ("POST", "/sessions", {"history": ["x" * 201]}, 422, "invalid"),
    ("POST", "/sessions", {"history": ["i3"], "feedback": []}, 422, "invalid"),
    ("POST", "/sessions", {"history": ["i3"], "feedback": ["yes"]}, 422, "invalid"),
    ("POST", "/sessions", b'{"history": ["i3"], "feedback": [NaN]}', 422, "invalid"),
    ("POST", "/sessions", {"user": ""}, 422, "invalid"),
    ("POST", "/sessions", {"user": 7}, 422, "invalid"),
    ("POST", "/sessions", {"group": MARKUP}, 422, "invalid"),
    ("POST", "/sessions", {"attributes": {"risk_limit": "high"}}, 422, "invalid"),
    ("POST", "/sessions", {"attributes": {MARKUP: 1}}, 422, "invalid"),
    ("POST", "/sessions", {"policy": MARKUP}, 404, "unknown_policy"),
    ("POST", "/sessions", {"seed": 2**63}, 422, "invalid"),
    ("POST", "/sessions", {"seed": 1.5}, 422, "invalid"),
    ("POST", "/sessions", {"unknown": 1}, 422, "invalid"),
    ("POST", "/sessions", b'{"user": "' + b"x" * 5000 + b'"}', 413, "too_large"),
    ("POST", "/sessions", b"[" * 4000, 400, "malformed"),
    ("PUT", "/sessions", {}, 405, "not_allowed"),
    ("DELETE", "/sessions", None, 405, "not_allowed"),
    ("GET", f"/sessions/{OTHER}", None, 404, "unknown_session"),
    ("GET", f"/sessions/{MARKUP}", None, 404, "not_found"),
    ("GET", "/sessions/%3Cb%3E", None, 404, "unknown_session"),
    ("GET", "/sessions/'; DROP TABLE sessions; --", None, 404, "unknown_session"),
    ("DELETE", f"/sessions/{OTHER}", None, 404, "unknown_session"),
    ("POST", f"/sessions/{OTHER}/recommendations", {}, 404, "unknown_session"),
    ("POST", f"/sessions/{OTHER}/events", {"events": ["EVENT"]}, 404, "unknown_session"),
    ("POST", "/sessions/MINE/recommendations", {"k": 3}, 422, "invalid"),
    ("POST", "/sessions/MINE/recommendations", {"details": "yes"}, 422, "invalid"),
    ("POST", "/sessions/MINE/recommendations", {"language": "xx"}, 422, "invalid"),
    ("POST", "/sessions/MINE/events", {}, 422, "invalid"),
    ("POST", "/sessions/MINE/events", {"events": []}, 422, "invalid"),
    ("POST", "/sessions/MINE/events", {"events": ["EVENT"] * 101}, 413, "too_large"),
    ("POST", "/sessions/MINE/events", {"events": [{"id": "a"}]}, 422, "invalid"),
    ("POST", "/sessions/MINE/events", {"type": "kill"}, 422, "invalid"),
    ("POST", "/sessions/MINE/events", {"item": MARKUP}, 404, "unknown_item"),
    ("POST", "/sessions/MINE/events", {"item": 5}, 422, "invalid"),
    ("POST", "/sessions/MINE/events", {"request": "MINE-1"}, 404, "unknown_request"),
    ("POST", "/sessions/MINE/events", {"request": "MINE--1"}, 404, "unknown_request"),
    ("POST", "/sessions/MINE/events", {"request": "MINE-²"}, 404, "unknown_request"),
    ("POST", "/sessions/MINE/events", {"request": "THEIRS-0"}, 404, "unknown_request"),
    ("POST", "/sessions/MINE/events", {"request": MARKUP}, 404, "unknown_request"),
    ("POST", "/sessions/MINE/events", {"id": ""}, 422, "invalid"),
    ("POST", "/sessions/MINE/events", {"value": "much"}, 422, "invalid"),
    ("POST", "/sessions/MINE/events", {"time": -1}, 422, "invalid"),
    ("GET", "/items?limit=0", None, 422, "invalid"),
    ("GET", "/items?query=" + "x" * 201, None, 422, "invalid"),
    ("GET", "/log?after=-1", None, 422, "invalid"),
    ("POST", "/recommendations", {"sessions": []}, 422, "invalid"),
    ("POST", "/recommendations", {"sessions": ["MINE"], "details": 1}, 422, "invalid"),
    ("PUT", "/policies", {"policies": []}, 422, "invalid"),
    ("PUT", "/policies", {"policies": [{"bundle": "mine", "share": 2}]}, 422, "invalid"),
    ("PUT", "/policies", {"policies": [{"bundle": "mine", "share": 0}]}, 422, "invalid"),
    ("GET", "/docs", None, 404, "not_found"),
    ("GET", "/../../etc/passwd", None, 404, "not_found"),
]


@pytest.fixture(scope="module")
def sessions(client: TestClient) -> dict[str, Any]:
    """Two people's sessions, each with a slate."""
    mine, theirs = begun(client), begun(client)
    asked(client, theirs)
    return {"MINE": mine, "THEIRS": theirs, "slate": asked(client, mine)}


@pytest.mark.parametrize("row", range(len(BAD)))
def test_bad_requests_are_told_in_a_line_and_leave_nothing(
    client: TestClient, sessions: dict[str, Any], row: int
) -> None:
    method, path, body, status, code = BAD[row]
    good = event(sessions["slate"], 0, "good")

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            text = value.replace("MINE", sessions["MINE"])
            return good if value == "EVENT" else text.replace("THEIRS", sessions["THEIRS"])
        if isinstance(value, list):
            return [filled(one) for one in value]
        return {k: filled(v) for k, v in value.items()} if isinstance(value, dict) else value

    body = filled(body)
    if path.endswith("MINE/events") and isinstance(body, dict) and body and "events" not in body:
        body = {"events": [{**good, "id": "first"}, {**good, **body}]}
    before = _counts(client)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json"} if method in ("POST", "PUT") else {}
    sent = content if method in ("POST", "PUT") else None
    answer = client.request(method, filled(path), content=sent, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    message = answer.json()["error"]["message"]
    assert set(answer.json()) == {"error"} and message and "\n" not in message
    assert len(message) < 300
    assert "<" not in answer.text  # nothing that a browser would take for markup
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["content-type"] == "application/json"
    assert _counts(client) == before


def _counts(client: TestClient) -> list[int]:
    database = client.app.state.desk.store._db  # type: ignore[attr-defined]
    return [
        database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("sessions", "slates", "events")
    ]


def test_titles_are_found_and_cannot_act(client: TestClient) -> None:
    answer = client.get("/items", params={"query": "ÜNÏTED"})
    assert [item["title"] for item in answer.json()["items"]] == [f"{MARKUP} Ünïted"]
    assert "<" not in answer.text
    assert len(client.get("/items").json()["items"]) == 20


def test_others_need_a_key(bundles: list[Path], tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("sixteen-characters-or-more\n")
    keys = (str(tmp_path / "keys.txt"),)
    with opened(bundles, tmp_path / "service.sqlite", keys=keys, rate=1.0) as client:
        assert client.get("/health").status_code == client.get("/metrics").status_code == 200
        for given in (None, "Bearer wrong", "sixteen"):
            headers = {"authorization": given} if given else {}
            answer = client.post("/sessions", json={}, headers=headers)
            assert answer.json()["error"]["code"] == "unauthorised"
        headers = {"authorization": "Bearer sixteen-characters-or-more"}
        made = [client.post("/sessions", json={}, headers=headers) for _ in range(4)]
        assert [answer.status_code for answer in made[:2]] == [201, 201]
        assert made[-1].json()["error"]["code"] == "too_many_requests"
        many = {"sessions": ["a"] * 9}  # each of them counts
        answer = client.post("/recommendations", json=many, headers=headers)
        assert answer.json()["error"]["code"] == "too_many_requests"
        assert client.post("/recommendations", json=many).status_code == 401
        assert made[-1].headers["retry-after"] == "1"
    (tmp_path / "short.txt").write_text("abc\n")
    with pytest.raises(ConfigError, match="needs keys of 16 characters"):
        make_app(bundles, tmp_path / "x", ServiceConfig(keys=(str(tmp_path / "short.txt"),)))
    check_reachable("127.0.0.1", keys=False)
    check_reachable("0.0.0.0", keys=True)
    with pytest.raises(ConfigError, match=r"--host 0\.0\.0\.0: others can connect"):
        check_reachable("0.0.0.0", keys=False)


def test_a_disk_that_fails_loses_nothing_and_counts_nothing_twice(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    session = begun(client, history=["i5"])
    slate = asked(client, session)
    store = client.app.state.desk.store  # type: ignore[attr-defined]

    def full() -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "commit", full)
        body = {"events": [event(slate, 0, "a")]}
        answers = [
            client.post(f"/sessions/{session}/events", json=body),
            client.post(f"/sessions/{session}/recommendations"),
        ]
    for answer in answers:
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "unavailable"
    assert client.post(f"/sessions/{session}/events", json=body).json()["accepted"] == 1
    assert asked(client, session)["number"] == 1


def test_memory_holds_so_many_sessions_and_the_database_all(
    bundles: list[Path], tmp_path: Path
) -> None:
    with opened(bundles, tmp_path / "service.sqlite", sessions=16) as client:
        names = [begun(client, history=history_of_small(k)) for k in range(20)]
        for name in names:
            asked(client, name)
        assert client.get("/health").json()["sessions"] == 16
        assert [asked(client, name)["number"] for name in names] == [1] * 20
        text = client.get("/metrics").text
        assert 'marec_slates_total{policy="mine"' in text and "marec_http_seconds_bucket" in text
        assert "/sessions/{session}/recommendations" in text and names[0] not in text
        assert set(client.get("/openapi.json").json()["paths"]) >= {"/sessions", "/log", "/health"}


def history_of_small(seed: int) -> list[str]:
    return [str(item) for item in history_of(Bundle.of(*small_team()), seed)]


def test_the_page_on_serving_has_every_setting() -> None:
    told = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    table = told.partition("## Settings")[2].partition("## What is kept")[0]
    for name, field in ServiceConfig.model_fields.items():
        assert f"`{name}`" in table, name
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert f"{field.default:g}" in table or str(field.default) in table, name
