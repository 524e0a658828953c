"""The service without its HTTP: teams, running sessions, and what is kept of them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.service.bundle import Bundle
from agents.service.config import Replica, ServiceConfig
from agents.service.databases import secret_of
from agents.service.past import Past, past_of
from agents.service.sessions import Session
from agents.service.slates import Record
from agents.service.store import Event, KeptSession, KeptSlate, Store
from agents.service.teams import Team, Teams
from agents.service.telling import (
    details_told,
    exposure_told,
    propensity_told,
    session_told,
    short,
    slate_told,
)
from agents.service.worker import Job, RefusedError
from marec_env import random
from marec_env.errors import DataError, MarecError
from marec_env.pipeline.reasons import channel_names

_DAY = 86_400.0  # seconds


@dataclass(slots=True)
class _Running:
    """A session in memory."""

    kept: KeptSession
    session: Session
    team: Team


class Desk:
    """Answers jobs (:class:`agents.service.worker.Job`); used by one thread."""

    def __init__(
        self,
        bundles: Sequence[Path],
        store: Store,
        config: ServiceConfig,
        replica: Replica = Replica(),  # noqa: B008  (frozen)
    ) -> None:
        """Args:
        bundles: folders of the teams; the first gets all new sessions, until told otherwise.
        store: where sessions are kept.
        config: of the service.
        replica: of several, which one; its sessions have names of its own.

        Raises:
            RunError, ConfigError: a bundle cannot be loaded, or they are of different catalogs.
        """
        self.store, self.config, self._replica = store, config, replica
        self._running: OrderedDict[str, _Running] = OrderedDict()
        self._deleted = False
        self._secret = secret_of(store.database) if config.pseudonyms else b""
        folder = Path(config.policies) if config.policies else bundles[0].resolve().parent
        self.teams = Teams(bundles, folder.resolve(), config.explore)

    # ------------------------------------------------------------------ the desk

    def begin(self) -> None:
        """Open a transaction."""
        self.store.begin()

    def commit(self) -> None:
        """Put what was done on disk."""
        self.store.commit()
        if self._deleted:
            self._deleted = False
            self.store.scrub()
        while len(self._running) > self.config.sessions:
            self._drop(next(iter(self._running)))

    def undo(self) -> None:
        """Forget what was done: sessions are read anew from the database."""
        self.store.rollback()
        for name in [*self._running]:
            self._drop(name)

    def joins(self, kind: str) -> bool:
        """Return whether jobs of this kind are answered together."""
        return kind in ("open", "recommend")

    def together(self, jobs: Sequence[Job]) -> None:
        """Answer requests for sessions and for slates, a batch for each team."""
        self._open([job for job in jobs if job.kind == "open"])
        asked: dict[int, list[tuple[Job, _Running]]] = {}
        for job in jobs:
            if job.kind != "recommend":
                continue
            try:
                running = self._found(job.session)
                running.team.engine.check(running.session)
                asked.setdefault(id(running.team), []).append((job, running))
            except DataError as error:
                job.error = RefusedError("exhausted", str(error))
            except MarecError as error:
                job.error = error
        for pairs in asked.values():
            self._recommend(pairs)

    def alone(self, job: Job) -> Any:
        """Answer another job."""
        found = getattr(self, f"_{job.kind}")
        return found(job.session, **job.values) if job.session else found(**job.values)

    # ------------------------------------------------------------------ sessions

    def _open(self, jobs: Sequence[Job]) -> None:
        ready: dict[int, tuple[Team, list[tuple[Job, KeptSession, Past]]]] = {}
        for job in jobs:
            try:
                kept, past, team = self._begun(**job.values)
                ready.setdefault(id(team), (team, []))[1].append((job, kept, past))
            except MarecError as error:
                job.error = error
        for team, found in ready.values():
            keys = [kept.key for _, kept, _ in found]
            opened = team.engine.open([past for *_, past in found], keys)
            self.store.add_sessions([kept for _, kept, _ in found])
            for (job, kept, _), session in zip(found, opened, strict=True):
                self._running[kept.id] = _Running(kept, session, team)
                job.result = {"session": kept.id, "policy": kept.policy, "version": kept.version}

    def _begun(
        self,
        user: str | None,
        history: list[Any],
        feedback: list[Any] | None,
        group: str | None,
        attributes: Mapping[str, float],
        policy: str | None,
        seed: int | None,
    ) -> tuple[KeptSession, Past, Team]:
        name = secrets.token_hex(16)
        while self._replica.owner(name) != self._replica.number:
            name = secrets.token_hex(16)
        team = self.teams.chosen(name, policy)
        past = past_of(team.bundle, history, feedback, group, attributes)
        if seed is None:
            seed = random.key_of(f"{self.config.seed}/{name}")
        kept = KeptSession(
            id=name,
            user=None if user is None else self.pseudonym(user),
            policy=team.bundle.name,
            version=team.bundle.version,
            created=time.time(),
            key=seed,
            past={
                "history": [team.bundle.ids[place] for place in past.items],
                "liked": list(past.liked),
                "group": group,
                "attributes": dict(attributes),
            },
        )
        return kept, past, team

    def pseudonym(self, user: str) -> str:
        """Return what is kept of a user's name."""
        if not self.config.pseudonyms:
            return user
        return hmac.new(self._secret, user.encode(), hashlib.sha256).hexdigest()

    def _found(self, name: str | None) -> _Running:
        """Return a session, from memory or from what is kept of it.

        Raises:
            RefusedError: there is none.
        """
        assert name is not None
        running = self._running.get(name)
        if running is not None and self._served(running.team):
            self._running.move_to_end(name)
            return running
        if running is not None:
            self._drop(name)
        kept = self.store.session(name)
        if kept is None:
            raise RefusedError("unknown_session", f"there is no session '{short(name)}'")
        team = self.teams.named(kept.policy) or self.teams.largest()
        bundle = team.bundle
        past = past_of(
            bundle,
            kept.past["history"],
            kept.past["liked"],
            kept.past["group"] if kept.past["group"] in bundle.groups else None,
            kept.past["attributes"],
        )
        same = kept.version == bundle.version
        records = _records(bundle, self.store.slates(name), self.store.events(name))
        session = team.engine.resume(past, kept.key, records, kept.state if same else b"")
        kept.policy, kept.version = bundle.name, bundle.version
        running = self._running[name] = _Running(kept, session, team)
        return running

    def _served(self, team: Team) -> bool:
        now = self.teams.named(team.bundle.name)
        return now is not None and now.engine is team.engine

    def _drop(self, name: str) -> None:
        running = self._running.pop(name, None)
        if running is not None:
            running.session.close()

    # ------------------------------------------------------------------ slates and events

    def _recommend(self, pairs: Sequence[tuple[Job, _Running]]) -> None:
        team = pairs[0][1].team
        sessions = [running.session for _, running in pairs]
        slates = team.engine.recommend(sessions)
        states = team.engine.states_of(sessions)
        now, channels = time.time(), channel_names(team.bundle.pipeline)
        kept = []
        for (job, running), slate, state in zip(pairs, slates, states, strict=True):
            name, came = running.kept.id, slate.record.channel
            blocks = slate.record.blocks
            kept.append(
                (
                    name,
                    KeptSlate(
                        number=slate.number,
                        time=now,
                        policy=team.bundle.name,
                        version=team.bundle.version,
                        items=[team.bundle.ids[place] for place in slate.places.tolist()],
                        channels=None if came is None else [channels[k] for k in came.tolist()],
                        blocks=None if blocks is None else blocks.tobytes(),
                        log_propensity=propensity_told(slate),
                        decisions=slate.decisions() or None,
                    ),
                    state,
                )
            )
            job.result = slate_told(name, team.bundle, slate, job.values.get("language"))
            if job.values.get("details"):
                job.result["details"] = details_told(slate)
        self.store.add_slates(kept)

    def _events(self, name: str, events: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Keep events, all or none, and let the session know of clicks."""
        running, now, checked = self._found(name), time.time(), []
        records, ids = running.session.records, running.team.bundle.ids
        for one in events:
            owner, _, number = one["request"].rpartition("-")
            shown = int(number) if number.isdecimal() and len(number) < 9 else -1
            if owner != name or not 0 <= shown < len(records):
                raise RefusedError(
                    "unknown_request", f"session has no request '{short(one['request'])}'"
                )
            if one["item"] not in {ids[place] for place in records[shown].slate.tolist()}:
                raise RefusedError(
                    "unknown_item",
                    f"item '{short(one['item'])}' was not on slate {shown} of the session",
                )
            moment = one.get("time")
            checked.append(
                Event(
                    one["id"], shown, one["item"], one["type"], one.get("value"),
                    now if moment is None else moment,
                )
            )  # fmt: skip
        new, late = self.store.add_events(name, checked), 0
        for event in new:
            if event.type == "click":
                late += event.number < running.session.closed
                running.session.click([event.item], event.number)
        return {"accepted": len(new), "duplicates": len(checked) - len(new), "late": late}

    def _state(self, name: str) -> dict[str, Any]:
        running = self._found(name)
        return {"created": running.kept.created, **session_told(name, running.session)}

    # ------------------------------------------------------------------ deletion, log

    def _delete(self, where: str, value: str | float) -> dict[str, Any]:
        ids, counts = self.store.delete(where, value)
        for name in ids:
            self._drop(name)
        self._deleted |= bool(ids)
        return {"deleted": counts}

    def _expire(self) -> dict[str, Any]:
        return self._delete("active < ?", time.time() - self.config.retention_days * _DAY)

    def _log(self, after: int, limit: int, decisions: bool) -> dict[str, Any]:
        found = [*self.store.exposures(after, limit)]
        told = {
            "exposures": [exposure_told(one, decisions) for one in found],
            "next": found[-1].sequence if found else after,
        }
        return told if self._replica.count == 1 else {**told, "as_of": self.store.horizon()}

    def _policies(self, policies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Serve these teams from now on."""
        self.teams.serve([(one["bundle"], one["share"]) for one in policies])
        return self.teams.told()

    @property
    def sessions(self) -> int:
        """Sessions in memory."""
        return len(self._running)


def _records(bundle: Bundle, slates: Sequence[KeptSlate], events: Sequence[Event]) -> list[Record]:
    """Return the slates of a session as its engine has them."""
    channels = {name: place for place, name in enumerate(channel_names(bundle.pipeline))}
    width, records = len(bundle.pipeline.blocks), []
    for slate in slates:
        blocks = None if slate.blocks is None else np.frombuffer(slate.blocks, np.float32).copy()
        fits = blocks is not None and blocks.size == width * len(slate.items)
        records.append(
            Record(
                slate=np.array([bundle.places[item] for item in slate.items]),
                clicks=np.zeros(len(slate.items), np.float32),
                channel=None
                if slate.channels is None
                else np.array([channels.get(name, -1) for name in slate.channels]),
                blocks=blocks.reshape(-1, width) if fits and blocks is not None else None,
            )
        )
    for event in events:
        if event.type == "click":
            place = slates[event.number].items.index(event.item)
            records[event.number].clicks[place] = 1.0
    return records
