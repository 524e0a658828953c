"""Running sessions of one team: memory that lasts between requests, many sessions in one batch.

All of a session's state is a row of tables (struct of arrays). A batch takes the rows that it asks
for, works on them with a pipeline of its size, and puts them back. What is shown is what the
simulator would have shown for the same memory and draws.

A slate is closed by the next request of its session: what was clicked until then is what the
session learns. Clicks that come later than that rebuild the memory from the slates and clicks of
the session, so that it depends on what was clicked, not on the order in which that became known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.learners.policy import TrainedPolicy
from agents.service.bundle import Bundle
from agents.service.past import Past, beginnings
from agents.service.slates import Record, Slate, Trace, slates_of
from agents.service.tables import Tables, flat
from marec_env.errors import ConfigError, DataError
from marec_env.pipeline.memory import SessionMemory
from marec_env.pipeline.pipeline import Pipeline
from marec_env.pipeline.request import Request
from marec_env.vector import Action, Rows

_LEAST = 4  # sessions of a batch: below, matrix products round otherwise than in larger ones
_OF_CANDIDATES = [
    "candidates",
    "candidate_channel",
    "blocks",
    "bonus",
    "veto",
    "scores",
    "slate_logits",
]
"""Parts of a request that hold something of each candidate."""
_LEFT = [item.name for item in fields(Request) if item.name not in ("keys", "step")]
_MEMORY, _PENDING, _RECURRENT = "memory", "pending", "recurrent"


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
        shown = len(self.records) * self.engine.slate_size
        return len(self.engine.bundle.ids) - self.past.distinct - shown

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
            self.late |= place < self.closed and not record.clicks[found[0]]
            record.clicks[found[0]] = 1.0

    def close(self) -> None:
        """Forget the session."""
        self.engine.close(self)


class Sessions:
    """The running sessions of one team.

    Attributes:
        bundle: of the team.
        slate_size: K.
        explore: whether components draw their actions.
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
        self._tables = Tables(self._device, apart=_MEMORY)
        self._primed = False

    # ------------------------------------------------------------------ sessions

    @torch.inference_mode()
    def open(self, pasts: Sequence[Past], keys: Sequence[int]) -> list[Session]:
        """Begin sessions of users with these pasts, under these keys of their draws."""
        if not pasts:
            return []
        pipeline = self._pipeline(len(pasts))
        self._begin(pasts, pipeline)
        sessions = [
            Session(self, past, key, self._tables.claim())
            for past, key in zip(pasts, keys, strict=True)
        ]
        self._put(pipeline.state_dict(copy=False), sessions)
        return sessions

    @torch.inference_mode()
    def resume(self, past: Past, key: int, records: Sequence[Record], state: bytes) -> Session:
        """Return a session as it was after its latest slate.

        Args:
            past, key: as of :meth:`open`.
            records: its slates, oldest first.
            state: what :meth:`states_of` returned then; empty where another version of the team
                showed the latest slate: what components remember beyond histories, slates and
                clicks begins anew.
        """
        if not self._primed:  # what the tables hold besides is known after a request
            nobody = Past((), (), 0, (math.inf,) * len(past.limits))
            [scratch] = self.open([nobody], [0])
            scratch.recommend()
            scratch.close()
        [session] = self.open([past], [key])
        session.records = list(records)
        known = bool(state) and self._tables.unpack(state, session.slot)
        session.closed = len(records) - known
        self._rebuild(session)
        return session

    def close(self, session: Session) -> None:
        """Forget a session."""
        if session.slot >= 0:
            self._tables.release(session.slot)
            session.slot = -1

    # ------------------------------------------------------------------ requests

    @torch.inference_mode()
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
        waiting = [session for session in sessions if session.closed < len(session.records)]
        if len(waiting) < len(sessions):  # some are new, or had their memory rebuilt
            if waiting:
                pipeline, state = self._taken(waiting)
                self._learn(pipeline, state, waiting)
                self._put(pipeline.state_dict(copy=False), waiting)
            return self._act(*self._taken(sessions), sessions)
        everything = self._taken(sessions)
        self._learn(*everything, sessions)
        return self._act(*everything, sessions)

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

    def _learn(
        self, pipeline: Pipeline, state: dict[str, Any], sessions: Sequence[Session]
    ) -> None:
        """Let the sessions in a pipeline learn how their latest slates were answered."""
        parts, size = state[_PENDING], pipeline.num_sessions
        request = Request(
            config=self.config,
            knowledge=self.bundle.knowledge,
            memory=pipeline.memory,
            keys=self._keys(sessions, size),
            step=pipeline.memory.requests,
            turn=len(pipeline.components),
            notes=parts.pop("notes", {}),
            **parts,
        )
        clicks = torch.from_numpy(np.stack([s.records[-1].clicks for s in sessions]))
        pipeline.learn(request, _padded(clicks, size).to(self._device))
        for session in sessions:
            session.closed = len(session.records)

    def _act(
        self, pipeline: Pipeline, state: dict[str, Any], sessions: Sequence[Session]
    ) -> list[Slate]:
        request = pipeline.begin(self._keys(sessions, pipeline.num_sessions))
        trace, recurrent = Trace(pipeline, [s.unseen for s in sessions]), dict[str, Tensor]()
        policy = self.bundle.policy
        agents = pipeline.agents
        turns = [(agent,) for agent in agents] if self.config.sequential else [agents]
        remembered = state.get(_RECURRENT, {})
        for number, turn in enumerate(turns if policy is not None else ()):
            observations = pipeline.observe_all(agents=turn)
            step = request.step * len(turns) + number
            decided = self._actions(request.keys, step, remembered, observations, trace)
            actions = pipeline.fit(decided)
            if isinstance(policy, TrainedPolicy):
                recurrent |= policy.memory
            for agent in turn:
                pipeline.act(request, agent, actions[agent])
        pipeline.finish(request)
        trace.complete(request)
        left = {_RECURRENT: recurrent, _PENDING: self._left_by(request)}
        self._put({**pipeline.state_dict(copy=False), **left}, sessions)
        self._primed = True
        slates = slates_of(self.bundle, request, trace, len(sessions))
        for session, slate in zip(sessions, slates, strict=True):
            session.records.append(slate.record)
            session.last = slate
        return slates

    def _actions(
        self,
        keys: Tensor,
        step: Tensor,
        remembered: Mapping[str, Tensor],
        observations: Mapping[str, Tensor],
        trace: Trace,
    ) -> dict[str, Action]:
        policy = self.bundle.policy
        assert policy is not None
        if not isinstance(policy, TrainedPolicy):
            trace.actions |= (actions := policy.act(observations))
            return actions
        policy.memory = {agent: remembered[agent] for agent in observations if agent in remembered}
        uniforms: dict[str, Tensor] = {}
        if self.explore:
            uniforms = {agent: policy.draws(agent, keys, step) for agent in observations}
        decisions = policy.decide(observations, uniforms)
        trace.actions |= (actions := {agent: d.action for agent, d in decisions.items()})
        for agent, decision in decisions.items():
            if decision.log_probability is not None:
                trace.drawn[agent] = (observations[agent], decision.flat, decision.log_probability)
        return actions

    def _left_by(self, request: Request) -> dict[str, Any]:
        """Return what a request leaves until its answer is known: of the candidates, the slate."""
        slot, parts = request.slate_slot, dict[str, Any]()
        for name in _LEFT:
            value = getattr(request, name)
            if name in _OF_CANDIDATES:
                value = request.of_slate(value)
            if isinstance(value, Tensor):
                parts[name] = value
        if slot is not None:
            parts["slate_slot"] = torch.arange(slot.shape[1], device=slot.device).expand_as(slot)
        return {**parts, "notes": request.notes}

    # ------------------------------------------------------------------ memory

    @torch.inference_mode()
    def view(self, session: Session) -> dict[str, Tensor]:
        """Return a session's memory, a row by name, as if its latest slate were closed now."""
        memory = self._replayed(session, len(session.records))
        return {name: value[0].clone() for name, value in memory.state_dict(copy=False).items()}

    def _rebuild(self, session: Session) -> None:
        """Make a session's memory anew from its past, slates and clicks."""
        memory = self._replayed(session, session.closed)
        self._put({_MEMORY: memory.state_dict(copy=False)}, [session])
        session.late = False

    def _replayed(self, session: Session, slates: int) -> SessionMemory:
        memory = self._begin([session.past], self._pipeline(1))

        def every(values: NDArray[Any] | None) -> Tensor | None:
            if values is None:
                return None
            row = torch.from_numpy(values).to(self._device)
            # Copies, since the memory may keep and refill it.
            return row.repeat(memory.num_sessions, *[1] * row.dim())

        for record in session.records[:slates]:
            slate, clicks = every(record.slate), every(record.clicks)
            assert slate is not None and clicks is not None
            memory.update(slate, clicks, every(record.channel), every(record.blocks))
        return memory

    def states_of(self, sessions: Sequence[Session]) -> list[bytes]:
        """Return what the sessions' records do not tell, for :meth:`resume`."""
        return self._tables.packed([session.slot for session in sessions])

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

    def _taken(self, sessions: Sequence[Session]) -> tuple[Pipeline, dict[str, Any]]:
        """Return a pipeline that holds the sessions' state, and all of that state; rows that fill
        the batch up are the first session's.
        """
        pipeline = self._pipeline(len(sessions))
        slots = [session.slot for session in sessions]
        slots += slots[:1] * (pipeline.num_sessions - len(slots))
        state = self._tables.take(slots)
        pipeline.load_state_dict(state, copy=False)
        return pipeline, state

    def _put(self, state: Mapping[str, Any], sessions: Sequence[Session]) -> None:
        """Write the sessions' rows, the first of each tensor of ``state``, into the tables."""
        self._tables.put(flat(state), [session.slot for session in sessions])

    def _keys(self, sessions: Sequence[Session], size: int) -> Tensor:
        keys = torch.tensor([session.key for session in sessions], device=self._device)
        return _padded(keys, size)

    def _begin(self, pasts: Sequence[Past], pipeline: Pipeline) -> SessionMemory:
        """Begin sessions with these pasts in the first rows of a pipeline's memory."""
        size, length = pipeline.num_sessions, self.bundle.history_length
        history, liked, group, limits = (
            _padded(column, size).to(self._device) for column in beginnings(pasts, length)
        )
        pipeline.reset(Rows(), history, liked, group, limits)
        for row, past in enumerate(pasts):
            if len(past.items) > length:
                # All of a history is seen, also what is too old for the profile.
                seen = torch.tensor(past.items, device=self._device)
                pipeline.memory.seen[row, seen] = True
        return pipeline.memory


def _padded(values: Tensor, size: int) -> Tensor:
    """Return rows filled up to ``size`` by the first."""
    missing = size - len(values)
    return torch.cat([values, values[:1].expand(missing, *values.shape[1:])]) if missing else values
