"""What stands before several replicas: a request goes to its session's owner, which the session's
name tells; what concerns all is asked of all, and joined: requests for many sessions, deletion of a
user, log, metrics, policies. Keys, rates and sizes are checked here.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, Protocol

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Lifespan

from agents.service.config import Replica, ServiceConfig
from agents.service.gate import Gate, Metrics, error_told, read_keys, refusal, told
from agents.service.link import Answer
from agents.service.worker import RefusedError
from marec_env.errors import MarecError

_METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]


class Owner(Protocol):
    """A replica, wherever it is."""

    @property
    def replica(self) -> Replica:
        """Which one."""
        ...

    async def ask(self, method: str, target: str, content: bytes = b"") -> Answer:
        """Return the answer to a request.

        Raises:
            RefusedError: it cannot be reached.
        """
        ...


class _RefusedError(Exception):
    """A replica's answer is a refusal, which the client gets."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Front:
    """Who answers what."""

    def __init__(self, links: Sequence[Owner]) -> None:
        """Args:
        links: to all replicas, in their order.
        """
        self.links = links
        self.policies = b""
        """What ``PUT /policies`` said last; a replica that starts anew is told."""
        self._next = 0
        self._began = time.monotonic()

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
        changed: list[Owner] = []
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
        self.policies = content
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


def front_app(
    front: Front, config: ServiceConfig, lifespan: Lifespan[Starlette] | None = None
) -> Starlette:
    """Return the front as an ASGI application.

    Raises:
        ConfigError: a file of keys cannot be used.
    """
    keys = read_keys(config)

    async def answer(request: Request) -> Response:
        return await front.answer(request)

    app = Starlette(routes=[Route("/{path:path}", answer, methods=_METHODS)], lifespan=lifespan)
    app.add_middleware(Gate, config=config, keys=keys, metrics=Metrics())
    return app
