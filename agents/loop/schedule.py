"""Rounds beside a running service: read its log, judge the candidate, learn the next, share out.

What was done is in one file, so that a loop that was stopped goes on where it was; what is served
is the service's to know, and is asked before every change.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from agents.loop.drift import ClickModel
from agents.loop.events import exposure_log, logged
from agents.loop.exposure import ExposureLog
from agents.loop.learning import keep_critics, kept_critics
from agents.loop.limits import rules_of
from agents.loop.rounds import LoopConfig, consider, judge
from agents.loop.visit import Service
from agents.service.bundle import Bundle, load_bundle, save_bundle
from marec_env.errors import DataError
from marec_env.evaluation.statistics import mean_estimate
from marec_env.io import read_json, write_json

if TYPE_CHECKING:
    from marec_env.world import World


class _Progress(BaseModel):
    served: str
    """Name of the bundle's folder, beside which all others lie."""
    candidate: str | None = None
    made: int = 0
    """Candidates so far."""
    after: int = 0
    """Sequence number of the log from which on requests count."""
    history: list[dict[str, Any]] = []
    seen: int = 0
    """Sequence number of the log up to which sessions were held against the model of clicks."""
    since: int = 0
    """Sequence number after which sessions began that are learned from: those before the latest
    drift tell of other tastes."""
    clicks: ClickModel | None = None
    drift: list[dict[str, Any]] = []
    """What came of that, window by window."""


class Schedule:
    """A loop's rounds, one at a time."""

    def __init__(
        self,
        url: str,
        bundle: Path,
        config: LoopConfig,
        file: Path,
        idle_seconds: float,
        key: str | None,
        world: World | None = None,
    ) -> None:
        """Args:
        url: of the service, which must find the bundles in the same folder.
        bundle: that is served when the loop begins; candidates are written beside it.
        config: what passes.
        file: of what was done.
        idle_seconds: after which a user has left.
        key: that the service asks for.
        world: whose users are fitted to the log, to learn on them; else teams learn from the log.
        """
        self._url, self._config, self._file, self._key = url, config, file, key
        self._folder, self._root = bundle.parent, bundle.name
        self._idle, self._world = idle_seconds, world
        self._at = (
            _Progress.model_validate(read_json(file, dict[str, Any]))
            if file.exists()
            else _Progress(served=bundle.name)
        )

    async def round(self) -> str:
        """Do one round, and return what was done in a line."""
        team = load_bundle(self._folder / self._at.served)
        async with Service(self._url, self._key) as service:
            rows = await logged(service, self._at.after)
            seen = self._watch(rows, team)
            if self._at.candidate is not None:
                said = await self._judge(service, rows, team, self._at.candidate)
            else:
                said = await self._consider(service, rows, team)
        write_json(self._file, self._at.model_dump(mode="json"))
        return f"{said}; {seen}" if seen else said

    def _watch(self, rows: Sequence[dict[str, Any]], team: Bundle) -> str:
        """Hold the sessions that have begun since the last time against the model of clicks, if
        they are enough; say what came of it. Where tastes have drifted, the model is made anew.
        """
        begun = _begun(rows, self._at.seen)
        if len(begun) < self._config.fewest_sessions:
            return ""
        try:
            window = exposure_log(
                [row for row in rows if row["session"] in begun],
                time.time(), self._idle, team.max_requests,
            )  # fmt: skip
            found = self._at.clicks.calibration(window) if self._at.clicks else None
        except DataError as error:
            return f"drift is not looked for: {error}"
        if found is not None and found.drift:
            self._at.since = self._at.seen
        self._at.seen = max(begun.values())
        if found is None or found.drift:
            self._at.clicks = ClickModel.of(window)
        if found is None:
            return f"clicks of {len(window.key)} sessions are what later ones are held against"
        self._at.drift.append({"until": time.time(), **found.as_json()})
        return str(found)

    def _log(self, rows: Sequence[dict[str, Any]], team: Bundle) -> ExposureLog:
        longest, versions = team.max_requests, [team.version]
        return exposure_log(rows, time.time(), self._idle, longest, versions)

    async def _judge(
        self, service: Service, rows: Sequence[dict[str, Any]], team: Bundle, name: str
    ) -> str:
        candidate = load_bundle(self._folder / name)
        try:
            served, canary = (
                self._log(rows, one).ended(one.max_requests) for one in (team, candidate)
            )
        except DataError as error:
            return f"{name}: {error}"
        verdict, gain = judge(served, canary, self._config)
        if verdict == "wait":
            told = "" if gain is None else f", {gain} clicks a session so far"
            return f"{name}: waiting, {len(canary)} ended sessions beside {len(served)}{told}"
        chosen = name if verdict == "promote" else self._at.served
        await self._share(service, [(chosen, 1.0)])
        self._at.history.append(
            {"candidate": name, "verdict": verdict, "gain": gain and gain.as_json()}
        )
        self._at.served, self._at.candidate = chosen, None
        self._at.after = max(int(row["sequence"]) for row in rows)
        return f"{name}: {verdict}, {gain} clicks a session beside {team.name}"

    async def _consider(
        self, service: Service, rows: Sequence[dict[str, Any]], team: Bundle
    ) -> str:
        networks, begun = team.networks, _begun(rows, self._at.since)
        try:
            log = self._log([row for row in rows if row["session"] in begun], team)
            found = consider(
                log, networks, self._config, kept_critics(self._folder / self._at.served),
                rules_of(team), self._world,
            )  # fmt: skip
        except DataError as error:
            return f"{team.name}: nothing learned: {error}"
        self._at.made += 1
        name = f"{self._root}-{self._at.made}"
        ended = mean_estimate(log.ended(team.max_requests).double().numpy())
        self._at.history.append(
            {
                "candidate": name,
                "sessions": len(log.key),
                "clicks_a_session": ended.as_json(),  # of the served team: drift is seen here
                **found.as_json(),
            }
        )
        if not found.passed:
            return f"{name}: {found}"
        place = self._folder / name
        save_bundle(replace(team, name=name, version="", policy=found.policy), place)
        keep_critics(place, found.critics)
        share = self._config.canary_share
        await self._share(service, [(self._at.served, 1.0 - share), (name, share)])
        self._at.candidate = name
        return f"{name}: {found}; meets {share:.0%} of new sessions"

    async def _share(self, service: Service, shares: Sequence[tuple[str, float]]) -> None:
        """Serve bundles with these shares; others that are served stay, to be had by name."""
        mine = {name for name, _ in shares}
        kept = [
            one["name"]
            for one in (await service.call("GET", "/policies"))["policies"]
            if one["name"] not in mine and not self._made_here(one["name"])
            and (self._folder / one["name"]).is_dir()
        ]  # fmt: skip
        wanted = [*shares, *((name, 0.0) for name in kept)]
        body = {"policies": [{"bundle": name, "share": share} for name, share in wanted]}
        await service.call("PUT", "/policies", body)

    def _made_here(self, name: str) -> bool:
        number = name.removeprefix(f"{self._root}-")
        return name == self._root or number.isdigit()


def _begun(rows: Sequence[dict[str, Any]], after: int) -> dict[str, int]:
    """Return the sessions that began after a sequence number, with that of their first request."""
    return {
        row["session"]: int(row["sequence"])
        for row in rows
        if row["number"] == 0 and int(row["sequence"]) > after
    }
