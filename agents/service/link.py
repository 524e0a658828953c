"""A process that serves as one of several, reached over a local socket."""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.responses import Response

from agents.service.config import Replica, ServiceConfig
from agents.service.databases import Place
from agents.service.worker import RefusedError
from marec_env.errors import MarecError, RunError

BACKLOG = 1024
"""Connections that wait to be taken."""
_SWITCH = 5e-4  # seconds; ten times as often as usual, or the network waits for the batch at work
_FOR_EVER = 10**9  # seconds that a connection of the front's may be idle
_KEPT = ("content-type", "retry-after", "etag", "last-modified")
"""Headers of an answer that are passed on; the gate adds its own."""


@contextmanager
def loading() -> Iterator[None]:
    """Within, what a service needs is imported and made; it stays, so that looking for what could
    be thrown away again and again would take a tenth of the time.
    """
    gc.disable()
    sys.setswitchinterval(_SWITCH)
    import torch

    torch.set_num_threads(1)  # batches are small: threads cost more than they bring
    yield
    gc.freeze()
    gc.enable()


@dataclass(slots=True)
class Answer:
    """What a replica answered."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def values(self) -> Any:
        """Its JSON."""
        return json.loads(self.content)

    def response(self) -> Response:
        """Return it as the front's own."""
        headers = {name: value for name, value in self.headers.items() if name in _KEPT}
        return Response(self.content, self.status, headers)


@dataclass(slots=True)
class Link:
    """A replica: its process, and connections to it."""

    replica: Replica
    socket: Path
    process: Any = None
    pipe: Any = None
    """Its other end closes with this process, which ends the replica."""
    teams: str = ""
    """Names of what it serves."""
    up: bool = False
    """It is there, and serves what it was told to."""
    _idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def ask(self, method: str, target: str, content: bytes = b"") -> Answer:
        """Return the answer to a request of somebody's.

        Raises:
            RefusedError: the replica is down, or is not up yet.
        """
        if not self.up:
            raise self._down()
        return await self.tell(method, target, content)

    async def tell(self, method: str, target: str, content: bytes) -> Answer:
        """Return the answer to a request of the front's own, which comes before :attr:`up`.

        Raises:
            RefusedError: the replica is down.
        """
        try:
            pair = self._idle.pop() if self._idle else await self._connect()
            reader, writer = pair
            head = f"{method} {target} HTTP/1.1\r\nhost: replica\r\ncontent-type: application/json"
            length = f"content-length: {len(content)}"
            writer.write(f"{head}\r\n{length}\r\n\r\n".encode("latin-1") + content)
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            named = (line.split(":", 1) for line in lines if ":" in line)
            headers = {name.lower(): value.strip() for name, value in named}
            size = 0 if method == "HEAD" else int(headers.get("content-length", 0))
            found = Answer(int(first.split(" ")[1]), headers, await reader.readexactly(size))
        except (OSError, EOFError) as error:
            self.forget()
            raise self._down() from error
        self._idle.append(pair)
        return found

    def _down(self) -> RefusedError:
        return RefusedError("unavailable", f"{self.replica} starts anew; try again")

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.socket), limit=1 << 20)

    def forget(self) -> None:
        """Hang up."""
        while self._idle:
            self._idle.pop()[1].close()

    def launch(self, bundles: Sequence[Path], database: Place, config: ServiceConfig) -> None:
        """Start the process; arguments as of :func:`agents.service.app.make_app`."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        arguments = (bundles, database, config, self.replica, self.socket, theirs)
        self.process = context.Process(target=_replica, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def wait(self) -> None:
        """Wait until it is there.

        Raises:
            RunError: it could not start; says why.
        """
        try:
            ready, self.teams = self.pipe.recv()
        except EOFError:
            ready, self.teams = False, "it was killed"
        if not ready:
            raise RunError(f"{self.replica} could not start: {self.teams}")

    def end(self) -> None:
        """Hang up, and let it answer what waits and end."""
        self.up = False
        self.forget()
        self.pipe.close()


def _replica(
    bundles: Sequence[Path],
    database: Place,
    config: ServiceConfig,
    replica: Replica,
    place: Path,
    pipe: Any,
) -> None:
    """Serve as one of several, until the pipe to the front is closed."""
    import socket
    import threading

    import uvicorn

    try:
        with loading():
            from agents.service.app import make_app

            app = make_app(bundles, database, config, replica)
    except MarecError as error:
        pipe.send((False, str(error)))
        return
    place.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place))
    listener.listen(BACKLOG)
    settings = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_keep_alive=_FOR_EVER
    )
    server = uvicorn.Server(settings)

    def wait() -> None:
        with suppress(EOFError, OSError):
            pipe.recv()
        server.should_exit = True

    threading.Thread(target=wait, daemon=True).start()
    names = ", ".join(team["name"] for team in app.state.desk.teams.told())
    pipe.send((True, names))
    server.run(sockets=[listener])
