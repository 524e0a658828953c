"""Several processes behind one port: each session has one owner, which keeps it in its own place.

A replica is the service of :mod:`agents.service.app` in a process of its own, reached over a local
socket. Here they are started, and started anew; who answers what is :mod:`agents.service.front`'s.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette

from agents.service.config import Replica, ServiceConfig
from agents.service.databases import Place, check_places
from agents.service.front import Front, front_app
from agents.service.link import Link
from marec_env.errors import MarecError

_LOG = logging.getLogger(__name__)


class Processes:
    """The replicas of this machine, and the front before them."""

    def __init__(
        self, bundles: Sequence[Path], database: Place, config: ServiceConfig, count: int
    ) -> None:
        """Args:
        bundles, database, config: as of :func:`agents.service.app.make_app`.
        count: of the replicas.

        Raises:
            ConfigError: the database is that of another number of replicas.
        """
        check_places(database, count)
        self._folder = Path(tempfile.mkdtemp(prefix="marec-"))  # nobody else's
        own = config.model_copy(update={"keys": (), "rate": 0.0})
        self._asked = (tuple(bundles), database, own)
        self.links = [
            Link(Replica(number, count), self._folder / f"{number}.socket")
            for number in range(count)
        ]
        self.front = Front(self.links)

    def start(self) -> None:
        """Start all replicas, and wait until they are there.

        Raises:
            RunError: one could not start; says why.
        """
        for link in self.links:
            link.launch(*self._asked)
        for link in self.links:
            link.wait()
            link.up = True

    async def watch(self) -> None:
        """Start replicas anew that have ended."""
        await asyncio.gather(*map(self._watch, self.links))

    async def _watch(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        while True:
            ended = asyncio.Event()
            loop.add_reader(link.process.sentinel, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(link.process.sentinel)
            _LOG.warning("%s ended (%s) and starts anew", link.replica, link.process.exitcode)
            link.end()
            link.launch(*self._asked)
            try:
                await asyncio.to_thread(link.wait)
                if self.front.policies:
                    await link.tell("PUT", "/policies", self.front.policies)
                link.up = True
            except MarecError as error:  # the next turn tries again
                _LOG.warning("%s", error)

    def stop(self) -> None:
        """Let all replicas answer what waits, and end."""
        started = [link for link in self.links if link.process is not None]
        for link in started:
            link.end()
        for link in started:
            link.process.join()
        shutil.rmtree(self._folder, ignore_errors=True)


def start_replicas(
    bundles: Sequence[Path], database: Place, config: ServiceConfig, count: int
) -> tuple[Starlette, str]:
    """Start replicas; return the front as an ASGI application, and the names of the teams.

    Raises:
        ConfigError: a file of keys, or the number of replicas, does not fit.
        RunError: a replica could not start.
    """
    processes = Processes(bundles, database, config, count)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(processes.watch())
        yield
        watching.cancel()
        await asyncio.to_thread(processes.stop)

    try:
        app = front_app(processes.front, config, lifespan)
        processes.start()
    except MarecError:
        processes.stop()
        raise
    return app, processes.links[0].teams
