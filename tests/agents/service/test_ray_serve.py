"""Ray Serve places the replicas of examples/ray_serve.py: one service, one owner a session."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray.serve", reason="pip install 'ray[serve]'", exc_type=ImportError)
pytest.importorskip("uvicorn")
import httpx
import ray
from ray import serve

from agents.service.bundle import load_bundle
from agents.service.config import Replica
from agents.service.databases import places_of
from agents.service.past import past_of
from agents.service.sessions import Sessions
from agents.service.store import Store

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[3]


@pytest.fixture
def client(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    monkeypatch.syspath_prepend(ROOT)
    from examples.ray_serve import application

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    variables = {"PYTHONPATH": found, "OMP_NUM_THREADS": "1"}
    ray.init(
        num_cpus=4, include_dashboard=False, logging_level="error", log_to_driver=False,
        runtime_env={"env_vars": variables},
    )  # fmt: skip
    try:
        serve.start(http_options={"port": port})
        serve.run(application(str(folder), str(tmp_path / "db"), 2), name="marec")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            yield client
        serve.shutdown()
    finally:
        ray.shutdown()


def test_each_session_has_one_owner_and_outlives_it(
    client: httpx.Client, folder: Path, tmp_path: Path
) -> None:
    engine = Sessions(load_bundle(folder))
    [alone] = engine.open([past_of(engine.bundle)], [5])
    wanted = [[item.item for item in engine.recommend([alone])[0].items] for _ in range(4)]

    def ask(session: str) -> list[str]:
        answer = client.post(f"/sessions/{session}/recommendations")
        assert answer.status_code == 200, answer.text
        return [item["item"] for item in answer.json()["items"]]

    opened = [client.post("/sessions", json={"seed": 5}).json()["session"] for _ in range(4)]
    owners = [Replica(0, 2).owner(session) for session in opened]
    assert sorted(owners) == [0, 0, 1, 1]
    assert [[ask(session) for session in opened] for _ in range(3)] == [
        [slate] * 4 for slate in wanted[:3]
    ]
    served = {"policies": [{"bundle": folder.name, "share": 0.5}]}
    assert client.put("/policies", json=served).status_code == 200
    names = [name for name in ray.util.list_named_actors(True) if "owner-1" in name["name"]]
    ray.kill(ray.get_actor(**names[0]), no_restart=True)
    until = time.monotonic() + 120
    while client.get(f"/sessions/{opened[owners.index(1)]}").status_code == 503:
        assert time.monotonic() < until
    assert [ask(session) for session in opened] == [wanted[3]] * 4
    assert len(client.get("/log").json()["exposures"]) == 16
    kept = [Store(place, read=True) for place in places_of(tmp_path / "db")]
    assert [
        {one.session for one in store.exposures()}
        == {name for name, owner in zip(opened, owners, strict=True) if owner == number}
        for number, store in enumerate(kept)
    ] == [True, True]
