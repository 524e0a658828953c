"""The service over HTTP (FastAPI): keys, limits, one shape of errors, metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agents.service.config import Replica, ServiceConfig
from agents.service.databases import Place, check_places
from agents.service.desk import Desk
from agents.service.store import Store
from agents.service.telling import short
from agents.service.worker import RefusedError, Worker
from marec_env import __version__
from marec_env.errors import ConfigError, MarecError
from marec_env.text.prompts import Language

try:
    from fastapi import FastAPI, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.staticfiles import StaticFiles
    from prometheus_client import generate_latest
    from starlette.exceptions import HTTPException

    from agents.service.gate import Gate, Metrics, error_told, read_keys, refusal, told
except ImportError as error:  # pragma: no cover
    raise ConfigError(
        f"serving needs {error.name}, which is not installed: pip install 'marec[serve]'"
    ) from error

PAGE = Path(__file__).with_name("page")
_HOUR = 3600.0

Text = Annotated[str, Field(min_length=1, max_length=200)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class NewSession(_Body):
    """What is known of a user when a session begins."""

    user: Text | None = None
    history: Annotated[list[Text], Field(max_length=5000)] = []
    feedback: Annotated[list[bool | Number], Field(max_length=5000)] | None = None
    group: Text | None = None
    attributes: Annotated[dict[Text, Number], Field(max_length=50)] = {}
    policy: Text | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """Key of the session's draws (:func:`marec_env.random.session_keys`)."""


class Wish(_Body):
    """What is asked for beside a slate."""

    details: bool = False
    language: Language | None = None
    """In which each item's reason is told in a sentence; none by default."""


class Wishes(Wish):
    """What is asked for by many sessions at once."""

    sessions: Annotated[list[Text], Field(min_length=1, max_length=1024)]


class NewEvent(_Body):
    """What a user did to an item of a slate; ``click`` teaches the session, the others are kept."""

    id: Text
    request: Text
    item: Text
    type: Literal["click", "view", "skip", "like", "hide", "purchase", "watch"]
    value: Number | None = None
    time: Annotated[float, Field(ge=0, le=1e11)] | None = None


class NewEvents(_Body):
    """Events of one session."""

    events: Annotated[list[NewEvent], Field(min_length=1, max_length=100)]


class PolicyShare(_Body):
    """A bundle and its share of new sessions."""

    bundle: Text
    share: Annotated[float, Field(ge=0, le=1)]


class Policies(_Body):
    """The bundles to serve from now on."""

    policies: Annotated[list[PolicyShare], Field(min_length=1, max_length=16)]


def _code_and_line(error: MarecError) -> tuple[str, str]:
    return error.code if isinstance(error, RefusedError) else "invalid", str(error)


def make_app(
    bundles: Sequence[Path],
    database: Place,
    config: ServiceConfig | None = None,
    replica: Replica = Replica(),  # noqa: B008  (frozen)
) -> FastAPI:
    """Return the service as an ASGI application.

    Args:
        bundles: folders of the teams; the first gets all new sessions until told otherwise.
        database: where sessions and events are kept.
        config: of the service.
        replica: of several processes (:mod:`agents.service.replicas`), which one.

    Raises:
        ConfigError, RunError: a bundle, the database or a file of keys cannot be used.
    """
    config = config or ServiceConfig()
    keys = read_keys(config)
    check_places(database, replica.count)
    store = Store(database, synchronous=config.synchronous, replica=replica)
    desk = Desk(bundles, store, config, replica)
    metrics = Metrics()
    worker = Worker(desk, config.batch, config.waiting, metrics.batch.observe)
    metrics.sessions.set_function(lambda: desk.sessions)
    metrics.waiting.set_function(lambda: worker.waiting)
    began = time.monotonic()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker.start()
        keeping = asyncio.create_task(expire())
        yield
        keeping.cancel()
        await asyncio.to_thread(worker.stop)
        store.close()

    async def expire() -> None:
        while True:
            with suppress(MarecError):
                await asked("expire")
            await asyncio.sleep(_HOUR)

    async def asked(kind: str, session: str | None = None, **values: Any) -> Any:
        return await asyncio.wrap_future(worker.submit(kind, session, **values))

    app = FastAPI(
        title="marec", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.desk, app.state.worker = desk, worker
    app.add_middleware(Gate, config=config, keys=keys, metrics=metrics)

    @app.exception_handler(MarecError)
    async def refused(request: Request, error: MarecError) -> Response:
        return refusal(*_code_and_line(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return refusal("malformed", "the body is no JSON")
        place = ".".join(short(str(part)) for part in first["loc"][1:]) or "the body"
        return refusal("invalid", f"{place}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            return refusal("not_allowed", f"{request.method} is not possible here")
        if error.status_code == 404:
            return refusal("not_found", "there is nothing here; see /openapi.json")
        return refusal("malformed", "the request cannot be read")

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return refusal("failed", "the service failed; its log says how")

    @app.get("/health")
    async def health() -> Response:
        """Whether the service works, and with which policies."""
        return told(
            {
                "status": "ok",
                "policies": desk.teams.told(),
                "sessions": desk.sessions,
                "uptime_s": round(time.monotonic() - began, 3),
            }
        )

    @app.get("/metrics")
    async def told_metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4")

    @app.get("/items")
    async def items(
        query: Annotated[str, Field(max_length=200)] = "",
        limit: Annotated[int, Field(ge=1, le=200)] = 20,
    ) -> Response:
        """Items whose title contains a text, most popular first."""
        return told({"items": desk.teams.items(query, limit)})

    @app.get("/topics")
    async def topics() -> Response:
        """Names of the topics, in the order of every vector by topic."""
        return told({"topics": desk.teams.first.topics})

    @app.get("/policies")
    async def policies() -> Response:
        """The policies at work."""
        return told({"policies": desk.teams.told()})

    @app.get("/replays/{policy}")
    async def replays(policy: str) -> Response:
        """Simulated sessions of a policy, where some were exported with it."""
        return told(await asyncio.to_thread(desk.teams.replays, policy))

    @app.put("/policies")
    async def set_policies(body: Policies) -> Response:
        """Serve these bundles from now on; sessions of others go on with the largest share's."""
        wanted = [one.model_dump() for one in body.policies]
        return told({"policies": await asked("policies", policies=wanted)})

    @app.post("/sessions", status_code=201)
    async def open_session(body: NewSession) -> Response:
        """Begin a session."""
        return told(await asked("open", **body.model_dump()), 201)

    @app.post("/sessions/{session}/recommendations")
    async def recommend(session: str, body: Wish | None = None) -> Response:
        """Return the session's next slate."""
        found = await asked("recommend", session, **(body or Wish()).model_dump())
        metrics.slates.labels(found["policy"], found["version"]).inc()
        return told(found)

    @app.post("/recommendations")
    async def recommend_all(request: Request, body: Wishes) -> Response:
        """Return the next slate of each of these sessions, in their order; or why there is none."""
        request.scope["take"](len(body.sessions) - 1)
        wish = body.model_dump(exclude={"sessions"})
        slates = []
        answers = await asyncio.wrap_future(worker.submit_all("recommend", body.sessions, **wish))
        for found, error in answers:
            if isinstance(error, MarecError):
                found = error_told(*_code_and_line(error))
            elif error is not None:
                raise error
            else:
                metrics.slates.labels(found["policy"], found["version"]).inc()
            slates.append(found)
        return told({"slates": slates})

    @app.post("/sessions/{session}/events")
    async def add_events(session: str, body: NewEvents) -> Response:
        """Keep events; answered when they are on disk."""
        found = await asked("events", session, events=[one.model_dump() for one in body.events])
        for outcome, count in found.items():
            metrics.events.labels(outcome).inc(count)
        return told(found)

    @app.get("/sessions/{session}")
    async def state(session: str) -> Response:
        """What is remembered of a session."""
        return told(await asked("state", session))

    @app.delete("/sessions/{session}")
    async def delete_session(session: str) -> Response:
        """Delete a session and all that belongs to it."""
        found = await asked("delete", where="id = ?", value=session)
        if not found["deleted"]["sessions"]:
            raise RefusedError("unknown_session", f"there is no session '{short(session)}'")
        return told(found)

    @app.delete("/users/{user:path}")
    async def delete_user(user: str) -> Response:
        """Delete all that is kept of a user."""
        return told(await asked("delete", where='"user" = ?', value=desk.pseudonym(user)))

    @app.get("/log")
    async def log(
        after: Annotated[int, Field(ge=0)] = 0,
        limit: Annotated[int, Field(ge=1, le=10_000)] = 1000,
        decisions: bool = False,
    ) -> Response:
        """Slates with what was clicked on them, in the order in which they were shown."""
        return told(await asked("log", after=after, limit=limit, decisions=decisions))

    if PAGE.is_dir():
        app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    return app
