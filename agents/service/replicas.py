"""Several processes behind one port: each session has one owner, which keeps it in its own place.

A replica is the service of :mod:`agents.service.app` in a process of its own, reached over a local
socket. The front passes every request on to the session's owner, which the session's name tells,
and joins what concerns all: requests for many sessions, deletion of a user, log, metrics, policies.
Keys, rates and sizes are checked in front.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agents.service.config import Replica, ServiceConfig
from agents.service.databases import Place, check_places
from agents.service.gate import Gate, Metrics, error_told, read_keys, refusal, told
from agents.service.link import Answer, Link
from agents.service.worker import RefusedError
from marec_env.errors import MarecError, RunError

__all__ = ["Front", "start_replicas"]

_LOG = logging.getLogger(__name__)
_METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]


class _RefusedError(Exception):
    """A replica's answer is a refusal, which the client gets."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Front:
    """The replicas, and who answers what."""

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
        self._next = 0
        self._policies = b""
        """What ``PUT /policies`` said last; a replica that starts anew is told."""
        self._began = time.monotonic()

    # ------------------------------------------------------------------ processes

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
                if self._policies:
                    await link.tell("PUT", "/policies", self._policies)
                link.up = True
            except MarecError as error:  # the next turn tries again
                _LOG.warning("%s", error)

    def stop(self) -> None:
        """Let all replicas answer what waits, and end."""
        for link in self.links:
            link.end()
        for link in self.links:
            link.process.join()
        shutil.rmtree(self._folder, ignore_errors=True)

    # ------------------------------------------------------------------ requests

    async def answer(self, request: Request) -> Response:
        """Answer a request."""
        try:
            return await self._answer(request)
        except _RefusedError as error:
            return error.answer.response()
        except MarecError as error:
            return refusal(error.code if isinstance(error, RefusedError) else "invalid", str(error))

    async def _answer(self, request: Request) -> Response:
        method, path, content = request.method, request.url.path, await request.body()
        target = (request.scope.get("raw_path") or path.encode()).decode("latin-1").split("?")[0]
        if request.url.query:
            target += f"?{request.url.query}"
        parts = path.split("/")
        match method, parts[1:]:
            case "POST", ["sessions"]:
                self._next += 1
                return await self._pass(self._next % len(self.links), method, target, content)
            case _, ["sessions", session, *_]:
                owner = self.links[0].replica.owner(session)
                return await self._pass(owner, method, target, content)
            case "POST", ["recommendations"]:
                return await self._together(request, content)
            case "DELETE", ["users", *_]:
                found = [answer.values["deleted"] for answer in await self._all(method, target)]
                return told({"deleted": {k: sum(one[k] for one in found) for k in found[0]}})
            case "GET", ["log"]:
                return await self._log(request, target)
            case "PUT", ["policies"]:
                return await self._serve(target, content)
            case "GET", ["health"]:
                found = [answer.values for answer in await self._all(method, target)]
                sessions = sum(one["sessions"] for one in found)
                uptime = round(time.monotonic() - self._began, 3)
                more = {"sessions": sessions, "uptime_s": uptime, "replicas": len(found)}
                return told(found[0] | more)
            case "GET", ["metrics"]:
                texts = [a.content.decode() for a in await self._all(method, target)]
                return Response(_summed(texts), media_type="text/plain; version=0.0.4")
        return await self._pass(0, method, target, content)

    async def _pass(self, place: int, method: str, target: str, content: bytes) -> Response:
        return (await self.links[place].ask(method, target, content)).response()

    async def _all(self, method: str, target: str) -> list[Answer]:
        answers = await asyncio.gather(*(link.ask(method, target) for link in self.links))
        for answer in answers:
            if answer.status != 200:
                raise _RefusedError(answer)
        return answers

    async def _together(self, request: Request, content: bytes) -> Response:
        """Ask each owner for the slates of its sessions."""
        try:
            body = json.loads(content)
            sessions = [str(name) for name in body["sessions"]]
            assert sessions and len(sessions) <= 1024
        except (ValueError, TypeError, KeyError, AssertionError):
            return await self._pass(0, "POST", "/recommendations", content)  # which says why not
        request.scope["take"](len(sessions) - 1)
        places: dict[int, list[int]] = defaultdict(list)
        for place, name in enumerate(sessions):
            places[self.links[0].replica.owner(name)].append(place)
        asked = [
            self.links[owner].ask(
                "POST",
                "/recommendations",
                json.dumps({**body, "sessions": [body["sessions"][k] for k in mine]}).encode(),
            )
            for owner, mine in places.items()
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        slates: list[Any] = [None] * len(sessions)
        refused = list[Response]()
        for mine, answer in zip(places.values(), answers, strict=True):
            if isinstance(answer, RefusedError):
                found = [error_told(answer.code, str(answer))] * len(mine)
                refused.append(refusal(answer.code, str(answer)))
            elif isinstance(answer, BaseException):
                raise answer
            elif answer.status != 200:
                found = [answer.values] * len(mine)
                refused.append(answer.response())
            else:
                found = answer.values["slates"]
            for place, slate in zip(mine, found, strict=True):
                slates[place] = slate
        if len(refused) == len(answers):
            return refused[0]
        return told({"slates": slates})

    async def _log(self, request: Request, target: str) -> Response:
        """Join the replicas' logs, as far as none of them can still have something to add."""
        pages = [answer.values for answer in await self._all("GET", target)]
        limit = int(request.query_params.get("limit", 1000))
        certain = [
            page["next"] if len(page["exposures"]) >= limit else page["as_of"] for page in pages
        ]
        rows = [
            row for page in pages for row in page["exposures"] if row["sequence"] <= min(certain)
        ]
        rows = sorted(rows, key=lambda row: row["sequence"])[:limit]
        after = rows[-1]["sequence"] if rows else int(request.query_params.get("after", 0))
        return told({"exposures": rows, "next": after, "as_of": min(certain)})

    async def _serve(self, target: str, content: bytes) -> Response:
        """Let all replicas serve these policies; where one refuses or is down, none changes."""
        before = json.dumps({"policies": await self._served()}).encode()
        changed: list[Link] = []
        try:
            for link in self.links:
                answer = await link.ask("PUT", target, content)
                if answer.status != 200:
                    raise _RefusedError(answer)
                changed.append(link)
        except (_RefusedError, RefusedError):
            for link in changed:
                with suppress(RefusedError):  # it starts anew, with those before
                    await link.ask("PUT", target, before)
            raise
        self._policies = content
        return answer.response()

    async def _served(self) -> list[dict[str, Any]]:
        found = (await self.links[0].ask("GET", "/policies")).values["policies"]
        return [{"bundle": team["name"], "share": team["share"]} for team in found]


def _summed(texts: Sequence[str]) -> bytes:
    """Return metrics of all replicas: each number is the sum of theirs."""
    families: dict[str, Any] = {}
    sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            families.setdefault(family.name, family)
            mine = sums.setdefault(family.name, defaultdict(float))
            for sample in family.samples:
                mine[sample.name, tuple(sample.labels.items())] += sample.value
    for name, family in families.items():
        family.samples = [Sample(k, dict(labels), v) for (k, labels), v in sums[name].items()]
    return generate_latest(SimpleNamespace(collect=families.values))


def start_replicas(
    bundles: Sequence[Path], database: Place, config: ServiceConfig, count: int
) -> tuple[Starlette, str]:
    """Start replicas; return the front as an ASGI application, and the names of the teams.

    Raises:
        ConfigError: a file of keys, or the number of replicas, does not fit.
        RunError: a replica could not start.
    """
    keys = read_keys(config)
    front = Front(bundles, database, config, count)
    try:
        front.start()
    except RunError:
        front.stop()
        raise

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(front.watch())
        yield
        watching.cancel()
        await asyncio.to_thread(front.stop)

    async def answer(request: Request) -> Response:
        return await front.answer(request)

    app = Starlette(routes=[Route("/{path:path}", answer, methods=_METHODS)], lifespan=lifespan)
    app.add_middleware(Gate, config=config, keys=keys, metrics=Metrics())
    return app, front.links[0].teams
