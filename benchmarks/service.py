"""The service under load on loopback: start, latency, throughput, and what kill -9 leaves.

python benchmarks/service.py BUNDLE            # start, latency, throughput, echo, bare policy call
python benchmarks/service.py BUNDLE --kills 20
python benchmarks/scale.py --bundle BUNDLE     # makes one of 100,000 items, to measure with

The server is pinned to one core and the load to another, where there are two. Bounded: every part
ends after ``--seconds``. Closed loop: a client asks anew as soon as it was answered; paced: each of
50 sessions asks about once a second, as people do; batched: two clients ask for the slates of 64
sessions in one request, and slates are counted. Sessions begin with ten items of the past. How
quick the core was meanwhile, which neighbours on its host decide too, ``loop_ms`` tells.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
HISTORY = 10  # items of the past that a session begins with
ECHO = """
import socket, uvicorn
from fastapi import FastAPI
app = FastAPI()
@app.post("/echo")
async def echo(body: dict) -> dict:
    return body
config = uvicorn.Config(app, log_level="warning", access_log=False)
listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen(1024)
print(f"serving echo at http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
uvicorn.Server(config).run(sockets=[listener])
"""


class Server:
    """A server in a process of its own; ready when it says so."""

    def __init__(self, arguments: list[str], cores: set[int] | None = None) -> None:
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        if cores:
            os.sched_setaffinity(self.process.pid, cores)
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if line.startswith("serving "):
                break
        else:
            raise RuntimeError(f"the server ended: {''.join(said)}")
        self.port = int(said[-1].rsplit(":", 1)[1])
        self.seconds = time.perf_counter() - began

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Let it end."""
        self.process.terminate()
        self.process.wait()


def service(bundle: Path, database: Path | str, cores: set[int] | None = None) -> Server:
    code = "import sys; from agents.cli import main; sys.exit(main(sys.argv[1:]))"
    place = ["--port", "0", "--database", str(database)]
    return Server(["-c", code, "serve", str(bundle), *place], cores)


class Client:
    """One connection; HTTP/1.1 by hand, which costs little of the core that measures."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the answer's content; ``ConnectionError`` if the server goes away."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self._streams
        content = json.dumps(body or {}).encode()
        try:
            writer.write(
                f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                f"content-length: {len(content)}\r\n\r\n".encode()
                + content
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.split("content-length:", 1)[1].split("\r\n", 1)[0])
            answer = await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            raise ConnectionError from error
        if not head.split(" ", 2)[1].startswith("2"):
            raise RuntimeError(f"{method} {path}: {answer.decode()}")
        return json.loads(answer)

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


async def begun(client: Client, items: list[str], seed: int) -> str:
    """Return the name of a new session, of a user with a past of some of these items."""
    body = {"seed": seed, "history": random.Random(seed).sample(items, HISTORY)}
    return (await client.ask("POST", "/sessions", body))["session"]


async def play(
    client: Client, times: list[float], until: float, items: list[str], pause: float, seed: int
) -> None:
    """Play sessions: ask, click on one item, ask again; a new session every 20 requests."""
    draw, session, number = random.Random(seed), "", 0
    while time.perf_counter() < until:
        if not session or number == 20:
            session, number = await begun(client, items, seed), 0
        if pause:
            await asyncio.sleep(draw.uniform(0.5, 1.5) * pause)
        began = time.perf_counter()
        slate = await client.ask("POST", f"/sessions/{session}/recommendations")
        times.append(time.perf_counter() - began)
        number += 1
        if number % 4 == 0:
            item = draw.choice(slate["items"])["item"]
            one = {"id": str(number), "request": slate["request"], "item": item, "type": "click"}
            await client.ask("POST", f"/sessions/{session}/events", {"events": [one]})


async def play_together(
    client: Client, times: list[float], until: float, items: list[str], batch: int
) -> None:
    """Play sessions together: a request asks for a slate of each; new ones every 100 requests."""
    sessions, number = list[str](), 100
    while time.perf_counter() < until:
        if number == 100:
            others = [Client(client.port) for _ in range(batch)]
            opening = (begun(other, items, seed) for seed, other in enumerate(others))
            sessions, number = await asyncio.gather(*opening), 0
            for other in others:
                other.close()
        began = time.perf_counter()
        answer = await client.ask("POST", "/recommendations", {"sessions": sessions})
        times += [time.perf_counter() - began] * len(answer["slates"])
        number += 1


async def echoed(client: Client, times: list[float], until: float, body: Any) -> None:
    while time.perf_counter() < until:
        began = time.perf_counter()
        await client.ask("POST", "/echo", body)
        times.append(time.perf_counter() - began)


Work = Callable[[int, list[float], float], Coroutine[Any, Any, None]]
"""What a client does: its number, where its times go, until when."""


async def load(clients: int, seconds: float, work: Work) -> dict[str, float]:
    """Return rate and latency of clients at work."""
    times: list[float] = []
    began = time.perf_counter()
    await asyncio.gather(*(work(k, times, began + seconds) for k in range(clients)))
    took = time.perf_counter() - began
    times.sort()
    return {
        "clients": clients,
        "requests": len(times),
        "per_second": round(len(times) / took, 1),
        "p50_ms": round(1e3 * times[len(times) // 2], 2),
        "p99_ms": round(1e3 * times[int(len(times) * 0.99)], 2),
    }


def bare(bundle: Path, batch: int, calls: int = 60) -> float:
    """Return milliseconds of a batch in the engine alone, the median."""
    import torch

    torch.set_num_threads(1)
    from agents.service.bundle import load_bundle
    from agents.service.past import past_of
    from agents.service.sessions import Sessions

    engine = Sessions(load_bundle(bundle))
    sessions = engine.open([past_of(engine.bundle)] * batch, list(range(batch)))
    times = []
    for call in range(calls):
        if call and call % 10 == 0:
            for session in sessions:
                session.close()
            sessions = engine.open([past_of(engine.bundle)] * batch, list(range(batch)))
        began = time.perf_counter()
        engine.recommend(sessions)
        times.append(time.perf_counter() - began)
    return round(1e3 * sorted(times)[len(times) // 2], 2)


def loop_ms() -> float:
    """Return milliseconds of a fixed loop: how quick this core is at the moment."""
    began = time.perf_counter()
    sum(range(3_000_000))
    return round(1e3 * (time.perf_counter() - began), 1)


def measure(bundle: Path, seconds: float, database: str | None) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))
    there, here = ({cores[0]}, {cores[1]}) if len(cores) > 1 else (set(cores), set(cores))
    found: dict[str, Any] = {"cores": os.cpu_count(), "load_average": os.getloadavg()[0]}
    os.sched_setaffinity(0, there)
    found["loop_ms"] = [loop_ms()]
    found["engine_ms"] = {str(size): bare(bundle, size) for size in (1, 16, 64)}
    found["loop_ms"].append(loop_ms())
    os.sched_setaffinity(0, here)

    def part(name: str, clients: int, work: Work) -> None:
        found[name] = asyncio.run(load(clients, seconds, work))
        print(name, found[name], flush=True)

    async def sample(client: Client) -> Any:
        session = await begun(client, items, 0)
        return await client.ask("POST", f"/sessions/{session}/recommendations")

    with tempfile.TemporaryDirectory() as folder:
        server = service(bundle, database or Path(folder) / "service.sqlite", there)
        found["start_s"] = round(server.seconds, 2)
        try:
            popular = asyncio.run(Client(server.port).ask("GET", "/items?limit=200"))["items"]
            items = [one["item"] for one in popular]
            for name, clients, pause in (("one", 1, 0.0), ("paced", 50, 1.0), ("many", 50, 0.0)):
                part(
                    name,
                    clients,
                    lambda k, t, u, p=pause: play(Client(server.port), t, u, items, p, k),
                )
            part("batched", 2, lambda _, t, u: play_together(Client(server.port), t, u, items, 64))
            body = asyncio.run(sample(Client(server.port)))
        finally:
            server.stop()
    echo = Server(["-c", ECHO], there)
    try:
        for name, clients in (("echo_one", 1), ("echo_many", 50)):
            part(name, clients, lambda _, t, u: echoed(Client(echo.port), t, u, body))
    finally:
        echo.stop()
    os.sched_setaffinity(0, there)
    found["loop_ms"].append(loop_ms())
    found["share_of_echo"] = {
        name: round(found[name]["per_second"] / found[f"echo_{name}"]["per_second"], 3)
        for name in ("one", "many")
    }
    return found


async def disturbed(
    port: Callable[[], int], done: Callable[[], bool], seed: int, most: int
) -> dict[str, Any]:
    """Play one session of ``most`` slates through restarts; return what was acknowledged.

    What was not acknowledged is sent again as it was: an event by its id, a request for a slate as
    a new one.
    """
    draw, acknowledged = random.Random(seed), {"session": "", "events": {}, "slates": {}}
    client, number = Client(port()), 0

    async def surely(method: str, path: str, body: Any = None) -> Any:
        while True:
            client.port = port()
            try:
                return await client.ask(method, path, body)
            except ConnectionError:
                await asyncio.sleep(0.05)

    acknowledged["session"] = (await surely("POST", "/sessions", {"seed": seed}))["session"]
    url = f"/sessions/{acknowledged['session']}"
    while not done() and len(acknowledged["slates"]) < most:
        slate = await surely("POST", f"{url}/recommendations")
        items = [item["item"] for item in slate["items"]]
        acknowledged["slates"][slate["number"]] = items
        for item in draw.sample(items, 2):
            number += 1
            name = f"event-{number}"
            one = {"id": name, "request": slate["request"], "item": item, "type": "click"}
            await surely("POST", f"{url}/events", {"events": [one]})
            acknowledged["events"][name] = (slate["number"], item)
        await asyncio.sleep(0.01)
    client.close()
    return acknowledged


async def kills(
    bundle: Path, database: Path | str, times: int, sessions: int = 8
) -> dict[str, int]:
    """Kill the server under load, again and again, and compare what it kept with what it said.

    Raises:
        AssertionError: an acknowledged event or slate was lost or changed, or one counted twice.
    """
    from agents.service.bundle import load_bundle

    team = load_bundle(bundle)
    free = (len(team.ids) - team.pipeline.candidates) // team.pipeline.slate_size
    # A kill may lose the answer with a slate, and one more is asked for at the end.
    most = min(100, free - times - 1)
    server, ended = service(bundle, database), False
    playing = [
        asyncio.create_task(disturbed(lambda: server.port, lambda: ended, k, most))
        for k in range(sessions)
    ]
    draw = random.Random(0)
    for _ in range(times):
        await asyncio.sleep(draw.uniform(0.3, 1.2))
        server.kill()
        server = await asyncio.to_thread(service, bundle, database)
    await asyncio.sleep(0.5)
    ended = True
    told = await asyncio.gather(*playing)
    for one in told:  # a session goes on, and the service knows what it said
        client = Client(server.port)
        state = await client.ask("GET", f"/sessions/{one['session']}")
        clicked = {
            (slate["number"], item["item"])
            for slate in state["slates"]
            for item in slate["items"]
            if item["clicked"]
        }
        assert clicked == set(one["events"].values())
        following = await client.ask("POST", f"/sessions/{one['session']}/recommendations")
        assert following["number"] == len(state["slates"])
        client.close()
    server.stop()
    return _compared(database, told, times)


def _compared(database: Path | str, told: list[dict[str, Any]], times: int) -> dict[str, int]:
    from agents.service.databases import place_of
    from agents.service.store import Store

    store = Store(place_of(str(database)), read=True)
    events = slates = 0
    for one in told:
        kept = store.events(one["session"])
        assert len({event.id for event in kept}) == len(kept)
        assert {event.id: (event.number, event.item) for event in kept} == one["events"]
        shown = store.slates(one["session"])
        assert [slate.number for slate in shown] == list(range(len(shown)))
        items = {slate.number: slate.items for slate in shown}
        assert {number: items[number] for number in one["slates"]} == one["slates"]
        seen = [item for slate in shown for item in slate.items]
        assert len(seen) == len(set(seen))  # nobody is shown an item twice
        events, slates = events + len(kept), slates + len(one["slates"])
    store.close()
    return {"kills": times, "sessions": len(told), "events": events, "slates": slates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each part")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--database", help="postgresql://...; else a new file")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.kills:
        with tempfile.TemporaryDirectory() as folder:
            database = options.database or Path(folder) / "service.sqlite"
            found: Any = asyncio.run(kills(options.bundle.resolve(), database, options.kills))
    else:
        found = measure(options.bundle.resolve(), options.seconds, options.database)
    print(json.dumps(found, indent=2))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
