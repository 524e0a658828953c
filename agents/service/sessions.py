"""Running sessions of one team: memory that lasts between requests, many sessions in one batch.

All of a session's state is a row of tables (struct of arrays). A batch takes the rows that it asks
for, works on them with a pipeline of its size, and puts them back. What is shown is what the
simulator would have shown for the same memory and draws.

A slate is closed by the next request of its session: what was clicked until then is what the
session learns. Clicks that come later than that rebuild the memory from the slates and clicks of
the session, so that it depends on what was clicked, not on the order in which that became known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.learners.policy import TrainedPolicy
from agents.service.bundle import Bundle
from agents.service.past import Past
from agents.service.slates import Slate, Trace, slates_of
from marec_env.errors import ConfigError, DataError
from marec_env.pipeline.memory import SessionMemory
from marec_env.pipeline.pipeline import Pipeline
from marec_env.pipeline.request import Request
from marec_env.vector import Action, Rows

__all__ = ["Record", "Session", "Sessions"]

_LEAST = 4  # sessions of a batch: below, matrix products round otherwise than in larger ones
_FIRST_SLOTS = 16
_OF_CANDIDATES = (
    "candidates", "candidate_channel", "blocks", "bonus", "veto", "scores", "slate_logits",
)  # fmt: skip
"""Parts of a request that hold something of each candidate."""
_NOTE = "notes/"


@dataclass(slots=True)
class Record:
    """A slate that was shown, and what is known of the answer."""

    slate: NDArray[np.int64]
    """``[K]``, places in the catalog."""
    clicks: NDArray[np.float32]
    """``[K]``."""
    channel: NDArray[np.int64] | None
    """``[K]``, what brought each item."""
    blocks: NDArray[np.float32] | None
    """``[K, blocks]``."""


@dataclass(slots=True, eq=False)
class Session:
    """One user's session.

    >>> slate = session.recommend()  # doctest: +SKIP
    >>> session.click([slate.items[2].item])  # doctest: +SKIP
    """

    engine: Sessions
    past: Past
    key: int
    """Of its draws."""
    slot: int
    """Its row of the tables; -1 after :meth:`close`."""
    records: list[Record] = field(default_factory=list)
    closed: int = 0
    """Slates that the memory has learned of."""
    late: bool = False
    """Whether a click on one of these has come since."""
    last: Slate | None = None

    @property
    def unseen(self) -> int:
        """Items that may still be shown."""
        shown = sum(len(record.slate) for record in self.records)
        return len(self.engine.bundle.ids) - len(set(self.past.items)) - shown

    def recommend(self) -> Slate:
        """Return the next slate; see :meth:`Sessions.recommend` for many sessions at once."""
        return self.engine.recommend([self])[0]

    def click(self, items: Sequence[str | int], number: int | None = None) -> None:
        """Take note of clicks on a slate.

        Args:
            items: identifiers.
            number: of the slate, from 0; by default the latest.

        Raises:
            DataError: there is no such slate, or an item is not on it.
        """
        place = len(self.records) - 1 if number is None else number
        if not 0 <= place < len(self.records):
            raise DataError(f"slate {place} was not shown; there are {len(self.records)}")
        record, places = self.records[place], self.engine.bundle.places
        for item in items:
            found = np.flatnonzero(record.slate == places.get(str(item), -1))
            if not len(found):
                raise DataError(f"item '{item}' is not on slate {place}")
            if not record.clicks[found[0]]:
                record.clicks[found[0]] = 1.0
                self.late |= place < self.closed

    def close(self) -> None:
        """Forget the session."""
        self.engine.close(self)


class Sessions:
    """The running sessions of one team.

    Attributes:
        bundle: of the team.
        slate_size: K.
        explore: whether components draw their actions rather than take the most probable.
    """

    def __init__(
        self, bundle: Bundle, *, slate_size: int | None = None, explore: bool = False
    ) -> None:
        """Args:
        bundle: of the team.
        slate_size: items of a slate; by default as in training.
        explore: let components draw their actions, so that their probabilities are known.

        Raises:
            ConfigError: the team cannot draw, or its pipeline cannot be built.
        """
        self.bundle = bundle
        config = bundle.pipeline
        if slate_size is not None:
            config = config.model_copy(update={"slate_size": slate_size})
        self.config = config
        self.slate_size = config.slate_size
        if explore and not isinstance(bundle.policy, TrainedPolicy):
            raise ConfigError(f"'{bundle.name}' is no trained team, which alone draws its actions")
        self.explore = explore
        self._device = bundle.knowledge.text.device
        self._pipelines: dict[int, Pipeline] = {}
        self._free = list(range(_FIRST_SLOTS))[::-1]
        self._count = _FIRST_SLOTS
        self._tables: dict[str, Tensor] = {}
        self._pending: dict[str, Tensor] = {}

    # ------------------------------------------------------------------ sessions

    def open(self, pasts: Sequence[Past], keys: Sequence[int]) -> list[Session]:
        """Begin sessions of users with these pasts, under these keys of their draws."""
        if not pasts:
            return []
        pipeline = self._pipeline(len(pasts))
        pipeline.reset(Rows(), *self._beginnings(pasts, pipeline.num_sessions))
        self._see(pipeline.memory, pasts)
        while len(self._free) < len(pasts):
            self._grow()
        sessions = [
            Session(self, past, key, self._free.pop())
            for past, key in zip(pasts, keys, strict=True)
        ]
        self._put(_flat(pipeline.state_dict()), sessions)
        for agent in [name for name in self._tables if name.startswith("recurrent/")]:
            self._tables[agent][[session.slot for session in sessions]] = 0.0
        return sessions

    def resume(self, past: Past, key: int, records: Sequence[Record], state: bytes) -> Session:
        """Return a session as it was after its latest slate.

        Args:
            past, key: as of :meth:`open`.
            records: its slates, oldest first.
            state: what :meth:`state_of` returned then; empty where another version of the team
                showed the latest slate: what components remember beyond histories, slates and
                clicks begins anew.
        """
        [session] = self.open([past], [key])
        session.records = list(records)
        session.closed = max(0, len(records) - (1 if state else 0))
        self._rebuild(session)
        if state:
            self._restore(session, state)
        return session

    def close(self, session: Session) -> None:
        """Forget a session."""
        if session.slot >= 0:
            self._free.append(session.slot)
            session.slot = -1

    # ------------------------------------------------------------------ requests

    @torch.no_grad()
    def recommend(self, sessions: Sequence[Session]) -> list[Slate]:
        """Close the sessions' latest slates, and return the next ones, in one batch.

        Raises:
            DataError: a session has been shown so much that fewer than ``pipeline.candidates``
                items are left.
        """
        for session in sessions:
            self.check(session)
            if session.late:
                self._rebuild(session)
        self._learn([session for session in sessions if session.closed < len(session.records)])
        return self._act(sessions)

    def check(self, session: Session) -> None:
        """Refuse a session that has been closed, or has seen too much.

        Raises:
            DataError: it has.
        """
        if session.slot < 0:
            raise DataError("the session was closed; begin a new one")
        if session.unseen < self.config.candidates:
            raise DataError(
                f"the session has {session.unseen} unseen items left, and a request needs "
                f"{self.config.candidates} candidates; begin a new session"
            )

    def _learn(self, sessions: Sequence[Session]) -> None:
        """Let sessions learn how their latest slates were answered."""
        if not sessions:
            return
        pipeline, rows = self._taken(sessions)
        parts = {name: table.index_select(0, rows) for name, table in self._pending.items()}
        request = Request(
            config=self.config,
            knowledge=self.bundle.knowledge,
            memory=pipeline.memory,
            keys=self._keys(sessions, len(rows)),
            step=pipeline.memory.requests,
            turn=len(pipeline.components),
            notes={n.removeprefix(_NOTE): p for n, p in parts.items() if n.startswith(_NOTE)},
            **{n: p for n, p in parts.items() if not n.startswith(_NOTE)},  # type: ignore[arg-type]
        )
        clicks = torch.from_numpy(np.stack([s.records[-1].clicks for s in sessions]))
        pipeline.learn(request, _padded(clicks, len(rows)).to(self._device))
        self._put(_flat(pipeline.state_dict()), sessions)
        for session in sessions:
            session.closed = len(session.records)

    def _act(self, sessions: Sequence[Session]) -> list[Slate]:
        pipeline, rows = self._taken(sessions)
        request = pipeline.begin(self._keys(sessions, len(rows)))
        trace = Trace()
        policy = self.bundle.policy
        turns = self._turns(pipeline) if policy is not None else ()
        for number, turn in enumerate(turns):
            observations = {agent: pipeline.observe(agent) for agent in turn}
            step = request.step * len(turns) + number
            actions = pipeline.fit(self._actions(request.keys, step, rows, observations, trace))
            for agent in turn:
                pipeline.act(request, agent, actions[agent])
        pipeline.finish(request)
        if isinstance(policy, TrainedPolicy):
            self._put({f"recurrent/{a}": m for a, m in policy.memory.items()}, sessions)
        state = _flat({k: v for k, v in pipeline.state_dict().items() if k != "memory"})
        self._put(state, sessions)
        self._keep(request, sessions)
        trace.complete(pipeline, request)
        slates = slates_of(self.bundle, pipeline, request, trace, len(sessions))
        for session, slate in zip(sessions, slates, strict=True):
            session.records.append(Record(slate.places, slate.unclicked, *slate.origin))
            session.last = slate
        return slates

    def _turns(self, pipeline: Pipeline) -> Sequence[tuple[str, ...]]:
        agents = pipeline.agents
        return [(agent,) for agent in agents] if self.config.sequential else [agents]

    def _actions(
        self,
        keys: Tensor,
        step: Tensor,
        rows: Tensor,
        observations: Mapping[str, Tensor],
        trace: Trace,
    ) -> dict[str, Action]:
        policy = self.bundle.policy
        assert policy is not None
        if not isinstance(policy, TrainedPolicy):
            trace.actions |= (actions := policy.act(observations))
            return actions
        policy.memory = {
            agent: self._tables[f"recurrent/{agent}"].index_select(0, rows)
            for agent in observations
            if f"recurrent/{agent}" in self._tables
        } | {a: m for a, m in policy.memory.items() if a in trace.actions}
        uniforms: dict[str, Tensor] = {}
        if self.explore:
            uniforms = {agent: policy.draws(agent, keys, step) for agent in observations}
        decisions = policy.decide(observations, uniforms)
        trace.actions |= (actions := {agent: d.action for agent, d in decisions.items()})
        for agent, decision in decisions.items():
            if decision.log_probability is not None:
                trace.drawn[agent] = (observations[agent], decision.flat, decision.log_probability)
        return actions

    def _keep(self, request: Request, sessions: Sequence[Session]) -> None:
        """Keep what a request leaves until its answer is known: of the candidates, the slate's."""
        slot, parts = request.slate_slot, dict[str, Tensor]()
        for item in fields(Request):
            value = getattr(request, item.name)
            if not isinstance(value, Tensor) or item.name in ("keys", "step"):
                continue
            if item.name in _OF_CANDIDATES:
                if slot is None:
                    continue
                place = slot.view(*slot.shape, *[1] * (value.dim() - 2))
                value = value.gather(1, place.expand(*slot.shape, *value.shape[2:]))
            parts[item.name] = value
        if slot is not None:
            parts["slate_slot"] = torch.arange(slot.shape[1], device=slot.device).expand_as(slot)
        parts |= {_NOTE + name: note for name, note in request.notes.items()}
        self._put(parts, sessions, self._pending)

    # ------------------------------------------------------------------ memory

    def view(self, session: Session) -> dict[str, Tensor]:
        """Return a session's memory, a row by name, as if its latest slate were closed now."""
        memory = self._replayed(session, len(session.records))
        return {name: value[0] for name, value in memory.state_dict().items()}

    def _rebuild(self, session: Session) -> None:
        """Make a session's memory anew from its past, slates and clicks."""
        memory = self._replayed(session, session.closed)
        self._put(_flat({"memory": memory.state_dict()}), [session])
        session.late = False

    def _replayed(self, session: Session, slates: int) -> SessionMemory:
        memory = self._pipeline(1).memory
        pasts = [session.past] * memory.num_sessions
        memory.reset(Rows(), *self._beginnings(pasts, len(pasts)))
        self._see(memory, pasts)

        def every(values: NDArray[Any] | None) -> Tensor | None:
            if values is None:
                return None
            row = torch.from_numpy(values).to(self._device)
            return row.repeat(len(pasts), *[1] * row.dim())  # the memory may keep and refill it

        for record in session.records[:slates]:
            slate, clicks = every(record.slate), every(record.clicks)
            assert slate is not None and clicks is not None
            memory.update(slate, clicks, every(record.channel), every(record.blocks))
        return memory

    def state_of(self, session: Session) -> bytes:
        """Return what a session's records do not tell, for :meth:`resume`."""
        from safetensors.torch import save

        tables = {n: t for n, t in self._tables.items() if not n.startswith("memory/")}
        tables |= {f"pending/{name}": table for name, table in self._pending.items()}
        found: bytes = save(
            {n: table[session.slot].clone().contiguous() for n, table in tables.items()}
        )
        return found

    def _restore(self, session: Session, state: bytes) -> None:
        from safetensors.torch import load

        rows = {name: value.unsqueeze(0).to(self._device) for name, value in load(state).items()}
        pending = {n.removeprefix("pending/"): r for n, r in rows.items() if "pending/" in n}
        self._put({n: r for n, r in rows.items() if "pending/" not in n}, [session])
        self._put(pending, [session], self._pending)

    # ------------------------------------------------------------------ tables

    def _pipeline(self, sessions: int) -> Pipeline:
        """Return the pipeline that works on so many sessions, or a few more."""
        size = max(_LEAST, 1 << (sessions - 1).bit_length())
        if size not in self._pipelines:
            self._pipelines[size] = Pipeline(
                self.config,
                self.bundle.knowledge,
                size,
                history_length=self.bundle.history_length,
                max_requests=self.bundle.max_requests,
                groups=len(self.bundle.groups),
            )
        return self._pipelines[size]

    def _taken(self, sessions: Sequence[Session]) -> tuple[Pipeline, Tensor]:
        """Return a pipeline that holds the sessions' state, and the rows that it holds; those that
        fill the batch up are the first session's.
        """
        pipeline = self._pipeline(len(sessions))
        slots = [session.slot for session in sessions]
        slots += slots[:1] * (pipeline.num_sessions - len(slots))
        rows = torch.tensor(slots, device=self._device)
        state: dict[str, Any] = {"mailbox": {}, "components": {}}
        for name, table in self._tables.items():
            section, *path = name.split("/")
            inner = state.setdefault(section, {})
            for part in path[:-1]:
                inner = inner.setdefault(part, {})
            inner[path[-1]] = table.index_select(0, rows)
        pipeline.load_state_dict(state)
        return pipeline, rows

    def _put(
        self,
        values: Mapping[str, Tensor],
        sessions: Sequence[Session],
        tables: dict[str, Tensor] | None = None,
    ) -> None:
        """Write the sessions' rows, the first of ``values``, into tables."""
        tables = self._tables if tables is None else tables
        rows = torch.tensor([session.slot for session in sessions], device=self._device)
        for name, value in values.items():
            if name not in tables:
                tables[name] = value.new_zeros(self._count, *value.shape[1:])
            tables[name].index_copy_(0, rows, value[: len(sessions)])

    def _grow(self) -> None:
        for tables in (self._tables, self._pending):
            for name, table in tables.items():
                tables[name] = torch.cat([table, torch.zeros_like(table)])
        self._free = [*range(2 * self._count - 1, self._count - 1, -1), *self._free]
        self._count *= 2

    def _keys(self, sessions: Sequence[Session], size: int) -> Tensor:
        keys = torch.tensor([session.key for session in sessions], device=self._device)
        return _padded(keys, size)

    def _beginnings(
        self, pasts: Sequence[Past], size: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return history and what was liked, ``[size, L]`` each and -1 padded, group and limits."""
        length = self.bundle.history_length
        items = np.full((len(pasts), length), -1, np.int64)
        liked = np.zeros((len(pasts), length), np.bool_)
        for row, past in enumerate(pasts):
            if kept := min(length, len(past.items)):
                items[row, -kept:] = past.items[-kept:]
                liked[row, -kept:] = past.liked[-kept:]
        group = np.array([past.group for past in pasts])
        limits = np.array([past.limits for past in pasts], np.float32)
        columns = (items, liked, group, limits.reshape(len(pasts), -1))
        found = (_padded(torch.from_numpy(c), size).to(self._device) for c in columns)
        return next(found), next(found), next(found), next(found)

    def _see(self, memory: SessionMemory, pasts: Sequence[Past]) -> None:
        """All of a history is seen, also what is too old for the profile."""
        for row, past in enumerate(pasts):
            if len(past.items) > self.bundle.history_length:
                memory.seen[row, torch.tensor(past.items, device=self._device)] = True


def _padded(values: Tensor, size: int) -> Tensor:
    """Return rows filled up to ``size`` by the first."""
    missing = size - len(values)
    return torch.cat([values, values[:1].expand(missing, *values.shape[1:])]) if missing else values


def _flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Tensor]:
    """Return the tensors of nested mappings by their paths."""
    found: dict[str, Tensor] = {}
    for name, value in tree.items():
        place = f"{path}{name}"
        found |= _flat(value, f"{place}/") if isinstance(value, Mapping) else {place: value}
    return found
