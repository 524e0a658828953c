"""Two replicas behind one port are one service: each session has one owner, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("uvicorn")
import httpx

from agents.service.bundle import load_bundle
from agents.service.config import Replica, ServiceConfig
from agents.service.databases import places_of
from agents.service.front import Front
from agents.service.link import Answer, Link
from agents.service.past import past_of
from agents.service.replicas import start_replicas
from agents.service.sessions import Sessions
from agents.service.worker import RefusedError
from marec_env.errors import ConfigError

ROOT = Path(__file__).parents[3]
KEY = "sixteen-characters-or-more"
CODE = "import sys; from agents.cli import main; sys.exit(main(sys.argv[1:]))"


def command(folder: Path, place: Path, replicas: int) -> list[str]:
    (place / "keys.txt").write_text(KEY)
    (place / "service.yaml").write_text(f"keys: [{place / 'keys.txt'}]\nbatch: 4\n")
    return [
        sys.executable, "-c", CODE, "serve", str(folder), "--port", "0", "--replicas",
        str(replicas), "--database", str(place / "db"), "--config", str(place / "service.yaml"),
    ]  # fmt: skip


@contextlib.contextmanager
def running(folder: Path, place: Path) -> Iterator[tuple[httpx.Client, int]]:
    """Serve with two replicas; give a client with the key, and the front's process id."""
    server = subprocess.Popen(
        command(folder, place, 2), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("serving plain, static at http://"), line
        headers = {"authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=line.split()[-1], headers=headers, timeout=200) as client:
            yield client, server.pid
    finally:
        server.terminate()
        assert server.wait(200) == -signal.SIGTERM or server.returncode == 0


def posted(client: httpx.Client, path: str, **body: Any) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def replicas_of(front: int) -> list[int]:
    """Return the process ids of a front's replicas."""
    found = []
    for child in Path(f"/proc/{front}/task/{front}/children").read_text().split():
        if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
            found.append(int(child))
    return found


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
def test_two_replicas_are_one_service(folder: Path, tmp_path: Path) -> None:
    pair = Replica(0, 2)
    with running(folder, tmp_path) as (client, front):
        # Keys are asked for in front.
        assert httpx.post(client.base_url.join("/sessions"), json={}).status_code == 401
        names = [
            posted(client, "/sessions", seed=seed, user=f"user {seed % 3}")["session"]
            for seed in range(6)
        ]
        owners = [pair.owner(name) for name in names]
        assert sorted(owners) == [0, 0, 0, 1, 1, 1]

        # What is shown is what one process would have shown, however it is asked for.
        bundle = load_bundle(folder)
        engine = Sessions(bundle)
        expected = engine.open([past_of(bundle)] * 6, list(range(6)))
        first = [posted(client, f"/sessions/{name}/recommendations") for name in names]
        event = {"id": "1", "request": first[0]["request"], "item": first[0]["items"][1]["item"]}
        for accepted, duplicates in ((1, 0), (0, 1)):
            found = posted(
                client, f"/sessions/{names[0]}/events", events=[{**event, "type": "click"}]
            )
            assert (found["accepted"], found["duplicates"]) == (accepted, duplicates)
        together = posted(client, "/recommendations", sessions=[*names, "unknown"])["slates"]
        assert together.pop()["error"]["code"] == "unknown_session"
        for number, shown in enumerate((first, together)):
            for name, slate, truth in zip(names, shown, engine.recommend(expected), strict=True):
                assert (slate["session"], slate["number"]) == (name, number)
                assert [i["item"] for i in slate["items"]] == [i.item for i in truth.items]
            if not number:
                expected[0].click([event["item"]])

        # One log, in one order, however it is read.
        whole = client.get("/log").json()["exposures"]
        sequence = [row["sequence"] for row in whole]
        assert sequence == sorted(set(sequence)) and len(sequence) == 12
        assert {row["session"] for row in whole} == {*names} and sum(map(sum, clicks(whole))) == 1
        assert len({row["user"] for row in whole}) == 3  # one pseudonym a user, wherever
        paged, after = [], 0
        while page := client.get("/log", params={"after": after, "limit": 5}).json()["exposures"]:
            paged, after = paged + page, page[-1]["sequence"]
        assert paged == whole

        health = client.get("/health").json()
        assert (health["status"], health["sessions"], health["replicas"]) == ("ok", 6, 2)
        metrics = client.get("/metrics").text
        assert f'marec_slates_total{{policy="plain",version="{bundle.version}"}} 12.0' in metrics
        assert metrics.count("# TYPE marec_slates_total counter") == 1
        shares = [{"bundle": "plain", "share": 0.5}]
        assert client.put("/policies", json={"policies": shares}).status_code == 200
        shares[0]["bundle"] = "nowhere"
        assert client.put("/policies", json={"policies": shares}).status_code == 422
        assert "content-security-policy" in client.get("/").headers

        # A replica that is killed starts anew, and knows its sessions and policies.
        for process in replicas_of(front):
            os.kill(process, signal.SIGKILL)
        until = time.monotonic() + 200
        while (answer := client.get(f"/sessions/{names[0]}")).status_code == 503:
            assert answer.json()["error"]["code"] == "unavailable"
            assert time.monotonic() < until
            time.sleep(0.1)
        while client.get("/health").status_code == 503:
            time.sleep(0.1)
        assert answer.json()["requests"] == 2
        assert answer.json()["slates"][0]["items"][1]["clicked"]
        assert client.get("/policies").json()["policies"][0]["share"] == 0.5
        for name in names:
            assert posted(client, f"/sessions/{name}/recommendations")["number"] == 2

        # Deletion of a user reaches all.
        deleted = client.delete("/users/user%200").json()["deleted"]
        assert deleted == {"sessions": 2, "requests": 6, "events": 1}
        assert client.get(f"/sessions/{names[0]}").status_code == 404
        assert client.delete("/users/user%200").json()["deleted"]["sessions"] == 0
        assert len(client.get("/log").json()["exposures"]) == 12
    assert [file.name for file in places_of(tmp_path / "db")] == ["db-1-of-2", "db-2-of-2"]
    alone = subprocess.run(
        command(folder, tmp_path, 1), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert alone.returncode == 2 and "another number of replicas" in alone.stderr


class Told:
    """A link that keeps what it was asked, and refuses where it is told to."""

    def __init__(self, status: int = 200, down: bool = False) -> None:
        self.status, self.down, self.heard = status, down, list[bytes]()

    async def ask(self, method: str, target: str, content: bytes = b"") -> Answer:
        if self.down:
            raise RefusedError("unavailable", "replica 2 of 2 starts anew; try again")
        if method == "GET":
            return Answer(200, {}, b'{"policies": [{"name": "old", "share": 1.0, "version": "1"}]}')
        self.heard.append(content)
        return Answer(self.status, {}, b"{}")


@pytest.mark.parametrize("second", [Told(status=422), Told(down=True)])
def test_all_replicas_serve_new_policies_or_none(second: Told) -> None:
    first = Told()
    front = Front([first, second])
    with pytest.raises(Exception, match=r"422|starts anew"):
        asyncio.run(front._serve("/policies", b"new"))
    assert first.heard == [b"new", b'{"policies": [{"bundle": "old", "share": 1.0}]}']
    assert not front.policies

    front = Front([first, Told()])
    assert asyncio.run(front._serve("/policies", b"new")).status_code == 200
    assert front.policies == b"new" and first.heard[-1] == b"new"


def test_a_replica_that_starts_anew_is_asked_only_once_it_serves_what_it_was_told(
    tmp_path: Path,
) -> None:
    link = Link(Replica(1, 2), tmp_path / "nobody.socket")
    link.pipe = SimpleNamespace(recv=lambda: (True, "old"))
    link.wait()
    assert link.teams == "old" and not link.up
    with pytest.raises(RefusedError, match="replica 2 of 2 starts anew"):
        asyncio.run(link.ask("GET", "/policies"))


def clicks(rows: list[dict[str, Any]]) -> list[list[int]]:
    return [row["clicks"] for row in rows]


def test_nothing_is_started_where_the_keys_are_missing(tmp_path: Path) -> None:
    config = ServiceConfig(keys=(str(tmp_path / "missing.txt"),))
    with pytest.raises(ConfigError, match=r"missing\.txt cannot be read"):
        start_replicas([], tmp_path / "db", config, 2)
    assert not [*tmp_path.iterdir()]
