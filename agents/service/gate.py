"""What every HTTP request passes, and the one shape of answers: keys, rates, sizes, metrics."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.responses import Response

from agents.service.config import ServiceConfig
from agents.service.worker import STATUS, RefusedError
from marec_env.errors import ConfigError, visible

_GUARDED = (
    "/sessions", "/users", "/policies", "/log", "/items", "/topics", "/recommendations", "/replays",
)  # fmt: skip
"""Paths that need a key; the others tell nothing of anybody."""
_LEAST_KEY = 16  # characters
_CLIENTS = 10_000  # whose rates are remembered
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.06, 0.1, 0.25, 0.5, 1.0, 5.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src "
        b"'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
]
"""The page fetches from nowhere else, and runs nothing that a title or name might hold."""

_ESCAPED = [(sign.encode(), f"\\u{ord(sign):04x}".encode()) for sign in "<\u2028\u2029"]

Scope = MutableMapping[str, Any]


class Metrics:
    """What Prometheus is told."""

    def __init__(self) -> None:
        """A registry of its own."""
        self.registry = here = CollectorRegistry()
        self.seconds = Histogram(
            "marec_http_seconds",
            "Time to an answer.",
            ["route", "status"],
            buckets=_SECONDS,
            registry=here,
        )
        self.batch = Histogram(
            "marec_batch_requests", "Requests answered at once.", buckets=_SIZES, registry=here
        )
        self.events = Counter(
            "marec_events", "Events by what became of them.", ["outcome"], registry=here
        )
        self.slates = Counter("marec_slates", "Slates shown.", ["policy", "version"], registry=here)
        self.sessions = Gauge("marec_sessions_in_memory", "Sessions in memory.", registry=here)
        self.waiting = Gauge("marec_requests_waiting", "Requests that wait.", registry=here)


def told(content: Any, status: int = 200) -> Response:
    """Return JSON in which no markup can act, wherever it is put."""
    text = orjson.dumps(content)
    for sign, escaped in _ESCAPED:
        text = text.replace(sign, escaped)
    return Response(text, status, media_type="application/json")


def error_told(code: str, message: str) -> dict[str, Any]:
    """Return an error as it is told, in one line."""
    line = visible(message.splitlines()[0] if message else code)
    return {"error": {"code": code, "message": line}}


def refusal(code: str, message: str) -> Response:
    """Return an error in the one shape that all have."""
    response = told(error_told(code, message), STATUS[code])
    if STATUS[code] in (429, 503):
        response.headers["retry-after"] = "1"
    return response


def read_keys(config: ServiceConfig) -> list[bytes]:
    """Return the keys of all files.

    Raises:
        ConfigError: a file cannot be read, or holds none.
    """
    found = []
    for file in config.keys:
        try:
            lines = Path(file).read_text().split()
        except (OSError, ValueError) as error:
            raise ConfigError(f"keys: {file} cannot be read: {error}") from error
        if not lines or min(map(len, lines)) < _LEAST_KEY:
            raise ConfigError(
                f"keys: {file} needs keys of {_LEAST_KEY} characters or more, one a line"
            )
        found += [line.encode() for line in lines]
    return found


class Gate:
    """What every request passes: keys, rates, sizes; and the time that its answer took."""

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        config: ServiceConfig,
        keys: list[bytes],
        metrics: Metrics,
    ) -> None:
        self._app, self._config, self._keys, self._metrics = app, config, keys, metrics
        self._left: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer, or let the application do so."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        try:
            body = self._refused(scope)
            if body is None and scope["method"] in ("POST", "PUT", "DELETE"):
                content = await self._read(receive)
                if content is None:
                    body = refusal(
                        "too_large", f"a body has at most {self._config.body_bytes} bytes"
                    )
                else:
                    receive = _replay(content)
            await (body or self._app)(scope, receive, sending)
        finally:
            route = scope.get("route")
            place = getattr(route, "path", "other")
            took = time.perf_counter() - began
            self._metrics.seconds.labels(place, str(status)).observe(took)

    def _refused(self, scope: Scope) -> Response | None:
        path, headers = scope["path"], dict(scope["headers"])
        given = headers.get(b"authorization", b"").removeprefix(b"Bearer ").strip()
        guarded = path.startswith(_GUARDED)
        if self._keys and guarded:
            known = [hmac.compare_digest(given, key) for key in self._keys]
            if not any(known):
                return refusal("unauthorised", "give a key: 'Authorization: Bearer KEY'")
        host = (scope.get("client") or ("",))[0].encode()
        scope["take"] = partial(self._take, given if self._keys else host)
        try:
            if guarded:
                scope["take"](1)
        except RefusedError as error:
            return refusal(error.code, str(error))
        return None

    def _take(self, client: bytes, requests: int) -> None:
        """Take requests of a client's share (a token bucket).

        Raises:
            RefusedError: too few are left.
        """
        if not self._config.rate:
            return
        now, most = time.monotonic(), 2.0 * self._config.rate
        left, then = self._left.pop(client, (most, now))
        left = min(most, left + (now - then) * self._config.rate)
        self._left[client] = (left - requests if left >= requests else left, now)
        if len(self._left) > _CLIENTS:
            self._left.popitem(last=False)
        if left < requests:
            raise RefusedError("too_many_requests", f"more than {self._config.rate:g} a second")

    async def _read(self, receive: Any) -> bytes | None:
        """Return a body, or ``None`` if it is too large."""
        parts, size = [], 0
        while True:
            message = await receive()
            part = message.get("body", b"")
            size += len(part)
            if size > self._config.body_bytes:
                return None
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)


def _replay(content: bytes) -> Callable[[], Awaitable[Any]]:
    told = False

    async def receive() -> Any:
        nonlocal told
        if told:
            await asyncio.Event().wait()
        told = True
        return {"type": "http.request", "body": content, "more_body": False}

    return receive
