"""The simulator's users as visitors of a service: a population on one side, HTTP on the other.

Users are simulated in a batch, requests of all of them are under way at once. A visitor is the user
whom the simulator would have had in the session of that number, with the same luck: where the
service shows what the simulated pipeline shows, clicks are the simulated ones.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from marec_env import random
from marec_env.errors import ConfigError, DataError, RunError, visible
from marec_env.users.registry import make_users
from marec_env.world import World

T = TypeVar("T")
_PATIENCE = 60.0  # seconds until an answer
_CONNECTIONS = 64  # at once, at most
_TRIES = 6  # of a request that the service could not take
_LONGEST_WAIT = 5.0  # seconds between them


@dataclass(slots=True)
class Visit:
    """What came of ``n`` sessions, in the order of their numbers."""

    clicks: list[float]
    length: list[int]
    """Requests of each."""
    left: list[bool]
    """Whether the user left; else the session was as long as sessions may be."""
    policy: list[str]
    """Who answered it."""
    seconds: float
    """Of all sessions together."""
    waits: list[float] = field(default_factory=list)
    """Seconds that each recommendation took."""

    def quantile(self, share: float) -> float:
        """Return the seconds below which a share of the recommendations was answered."""
        return float(torch.tensor(self.waits).quantile(share))


class Service:
    """A service's HTTP interface, to be used as an asynchronous context."""

    def __init__(
        self, url: str, key: str | None = None, connections: int = 64, transport: Any = None
    ) -> None:
        """Args:
        url: where it is.
        key: that it asks for, if any.
        connections: at once, at most 64.
        transport: httpx's, in place of the network.
        """
        try:
            import httpx
        except ImportError as error:
            raise ConfigError(
                "visiting a service needs httpx, which is not installed: pip install 'marec[serve]'"
            ) from error
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # What waits for a connection waits here: the client looks through all that it holds.
        self._free = asyncio.Semaphore(connections := min(connections, _CONNECTIONS))
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = httpx.AsyncClient(
            base_url=self.url,
            headers=headers,
            limits=limits,
            timeout=httpx.Timeout(_PATIENCE, pool=None),
            transport=transport,
        )
        self._busy = (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError)
        self._failed = httpx.HTTPError

    async def __aenter__(self) -> Service:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.aclose()

    async def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Return the answer; what the service could not take for the moment is sent again, which
        does no harm: events carry identifiers, and a slate that nobody saw is passed over.

        Raises:
            RunError: it does not answer, or refuses.
        """
        wait = 0.05
        for number in range(_TRIES):
            try:
                async with self._free:
                    answer = await self._client.request(
                        method, path, json=body, params=query or None
                    )
            except self._busy as error:
                if number + 1 < _TRIES:
                    await asyncio.sleep(wait := min(2 * wait, _LONGEST_WAIT))
                    continue
                raise RunError(f"{self.url} does not answer: {error or 'no connection'}") from error
            except self._failed as error:
                raise RunError(f"{self.url}{path}: {error or type(error).__name__}") from error
            if answer.status_code in (429, 503) and number + 1 < _TRIES:
                asked = answer.headers.get("Retry-After", "")
                wait = min(float(asked) if asked.isdigit() else 2 * wait, _LONGEST_WAIT)
                await asyncio.sleep(wait)
                continue
            if answer.is_error:
                raise RunError(f"{self.url}{path}: {answer.status_code}: {_message(answer)}")
            return answer.json()
        raise AssertionError


def _message(answer: Any) -> str:
    try:
        return visible(str(answer.json()["error"]["message"]))
    except (ValueError, KeyError, TypeError):
        return visible(answer.text[:200])


async def visit(
    service: Service,
    world: World,
    sessions: Sequence[int],
    seed: int,
    concurrency: int = 50,
    policy: str | None = None,
    prefix: str = "marec",
    say: Callable[[int], None] = lambda done: None,
) -> Visit:
    """Let users visit a service.

    Args:
        service: of the world's items.
        world: of the users; what the recommender knows of it is not used, but for who is new.
        sessions: their numbers.
        seed: of the cohort, as of a simulation.
        concurrency: sessions under way at once.
        policy: the team that is to answer; by default as the service shares sessions out.
        prefix: of the names by which users are known to the service, with their numbers behind.
        say: is told how many sessions have ended.

    Raises:
        RunError: the service does not answer, or refuses.
        DataError: it shows items that the world has not.
    """
    visitors = _Visitors(service, world, sessions, seed, concurrency, policy, prefix, say)
    return await visitors.go()


class _Visitors:
    """``B`` rows of simulated users; a row takes the next session when its own has ended."""

    def __init__(
        self, service: Service, world: World, sessions: Sequence[int], seed: int, rows: int,
        policy: str | None, prefix: str, say: Callable[[int], None],
    ) -> None:  # fmt: skip
        self._service, self._world, self._seed, self._policy = service, world, seed, policy
        self._prefix, self._say = prefix, say
        self._numbers = list(sessions)
        rows = max(1, min(rows, len(self._numbers)))
        self._users = make_users(world.config.users, world.population, rows, torch.device("cpu"))
        self._place = {item: place for place, item in enumerate(world.catalog.ids)}
        self._size = world.config.pipeline.slate_size
        self._of_row: list[int] = [-1] * rows
        """The place of each row's session among all, -1 for none."""
        self._session: list[str] = [""] * rows
        self._waiting = list(range(len(self._numbers)))[::-1]
        count = len(self._numbers)
        self._found = Visit([0.0] * count, [0] * count, [False] * count, [""] * count, 0.0)
        self._ended = 0

    async def go(self) -> Visit:
        began = time.monotonic()
        await self._fill(torch.ones(len(self._of_row), dtype=torch.bool))
        while any(place >= 0 for place in self._of_row):
            await self._request()
        self._found.seconds = time.monotonic() - began
        return self._found

    def _live(self) -> list[int]:
        return [row for row, place in enumerate(self._of_row) if place >= 0]

    async def _fill(self, free: Tensor) -> None:
        """Begin the next sessions in free rows, bool ``[B]``."""
        begun = []
        for row in free.nonzero().squeeze(1).tolist():
            self._of_row[row] = self._waiting.pop() if self._waiting else -1
            if self._of_row[row] >= 0:
                begun.append(row)
        if not begun:
            return
        numbers = torch.tensor([self._numbers[max(place, 0)] for place in self._of_row])
        keys = random.session_keys(self._seed, numbers)
        where = torch.zeros_like(free)
        where[begun] = True
        self._users.reset(keys, where)
        opened = await _together(self._open(row, int(keys[row])) for row in begun)
        for row, answer in zip(begun, opened, strict=True):
            self._session[row] = answer["session"]
            self._found.policy[self._of_row[row]] = answer["policy"]

    async def _open(self, row: int, key: int) -> Any:
        users, world = self._users, self._world
        population = world.population
        person = int(users.user_index[row])
        number = self._numbers[self._of_row[row]]
        body: dict[str, Any] = {"user": f"{self._prefix}-{self._seed}-{number}", "seed": key}
        if not bool(users.is_new[row]) and bool(world.learned.known_users[person]):
            items, liked = (row[0] for row in population.history.of(users.user_index[row, None]))
            there = items >= 0
            body["history"] = [world.catalog.ids[place] for place in items[there].tolist()]
            body["feedback"] = liked[there].tolist()
        if len(population.group_names) > 1:
            body["group"] = population.group_names[int(population.groups[person])]
        names = list(world.config.pipeline.audit.suitability.values())
        limits = {n: float(v) for n, v in zip(names, world.user_limits[person], strict=True)}
        if limits := {name: value for name, value in limits.items() if value != float("inf")}:
            body["attributes"] = limits
        if self._policy is not None:
            body["policy"] = self._policy
        return await self._service.call("POST", "/sessions", body)

    async def _recommend(self, row: int) -> tuple[str, list[int]]:
        began = time.monotonic()
        path = f"/sessions/{self._session[row]}/recommendations"
        answer = await self._service.call("POST", path, {})
        self._found.waits.append(time.monotonic() - began)
        items = [self._place.get(one["item"], -1) for one in answer["items"]]
        if len(items) != self._size or min(items) < 0:
            raise DataError(
                f"{self._service.url} shows {len(items)} items, of which the users know "
                f"{sum(place >= 0 for place in items)}; they expect {self._size} of "
                f"'{self._world.config.data.source}': name the configuration of the served team"
            )
        return answer["request"], items

    async def _request(self) -> None:
        """Play one request of every session under way."""
        live = self._live()
        shown = await _together(self._recommend(row) for row in live)
        # Rows without a session are shown something: what comes of it is of nobody.
        slate = torch.arange(self._size).expand(len(self._of_row), -1).clone()
        slate[live] = torch.tensor([items for _, items in shown])
        feedback = self._users.respond(slate)
        told = []
        for row, (request, items) in zip(live, shown, strict=True):
            clicked = feedback.clicks[row].nonzero().squeeze(1).tolist()
            place = self._of_row[row]
            self._found.clicks[place] += len(clicked)
            self._found.length[place] += 1
            if clicked:
                told.append(self._tell(row, request, [items[k] for k in clicked]))
        await _together(told)
        ended = torch.zeros(len(self._of_row), dtype=torch.bool)
        for row in live:
            place = self._of_row[row]
            self._found.left[place] = bool(feedback.left[row])
            longest = self._found.length[place] >= self._world.config.max_requests
            ended[row] = self._found.left[place] or longest
        if bool(ended.any()):
            self._ended += int(ended.sum())
            self._say(self._ended)
            await self._fill(ended)

    async def _tell(self, row: int, request: str, items: Sequence[int]) -> Any:
        names = [self._world.catalog.ids[place] for place in items]
        events = [
            {"id": f"{request}/{name}", "request": request, "item": name, "type": "click"}
            for name in names
        ]
        return await self._service.call(
            "POST", f"/sessions/{self._session[row]}/events", {"events": events}
        )


async def _together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return the answers of calls under way at once; the first that fails ends all, and is told."""
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from several
    return [task.result() for task in running]
