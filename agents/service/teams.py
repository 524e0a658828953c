"""The teams at work: which bundles are served, and what share of new sessions each gets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agents.service.bundle import Bundle, load_bundle
from agents.service.past import past_of
from agents.service.sessions import Sessions
from agents.service.telling import item_told, short
from agents.service.worker import RefusedError
from marec_env.errors import ConfigError, MarecError
from marec_env.io import read_json

STATIC = "static"
"""Name of the hand-set team."""
_WARM_UP = 3  # requests


@dataclass(slots=True)
class Team:
    """A bundle at work."""

    bundle: Bundle
    share: float
    """Of new sessions."""
    engine: Sessions
    place: Path | None = None
    """Its folder; the hand-set team has none."""


class Teams:
    """Teams by name; of one catalog, with slates of one size, so that sessions can move.

    The first one's pipeline with every component at its hand-set default is always there, by the
    name :data:`STATIC`, to compare with.
    """

    def __init__(self, bundles: Sequence[Path], folder: Path, explore: bool) -> None:
        """Args:
        bundles: folders; the first gets all new sessions.
        folder: in which other bundles must lie (:meth:`serve`).
        explore: whether trained teams draw their actions.

        Raises:
            RunError, ConfigError: one cannot be loaded, or they do not go together.
        """
        self._folder, self._explore = folder, explore
        self._teams: dict[str, Team] = {}
        self._set([(place, float(k == 0)) for k, place in enumerate(bundles)])

    def serve(self, wanted: Sequence[tuple[str, float]]) -> None:
        """Serve these bundles from now on, each with its share of new sessions.

        Raises:
            RefusedError: one cannot be, and all stays as it is.
        """
        places = []
        for name, share in wanted:
            place = (self._folder / name).resolve()
            if not place.is_relative_to(self._folder):
                raise RefusedError("invalid", f"bundle '{short(name)}' lies outside the folder")
            places.append((place, share))
        try:
            self._set(places)
        except MarecError as error:
            raise RefusedError("invalid", str(error)) from error

    def _set(self, wanted: Sequence[tuple[Path, float]]) -> None:
        teams: dict[str, Team] = {}
        for place, share in wanted:
            bundle = load_bundle(place)
            if bundle.name in teams:
                raise ConfigError(f"two bundles are called '{bundle.name}'; name each folder apart")
            known = self._teams.get(bundle.name)
            if known is not None and known.bundle.version == bundle.version:
                engine = known.engine
            else:
                engine = Sessions(bundle, explore=self._explore and bundle.policy is not None)
                _warm_up(engine)
            teams[bundle.name] = Team(engine.bundle, share, engine, place)
        if STATIC not in teams:
            bundle = _hand_set(next(iter(teams.values())).bundle)
            teams[STATIC] = Team(bundle, 0.0, Sessions(bundle))
        if not any(team.share > 0 for team in teams.values()):
            raise ConfigError("no policy has a share of the new sessions")
        _check_alike([*teams.values()], [*self._teams.values()])
        self._teams = teams

    @property
    def first(self) -> Bundle:
        """The first team's bundle, for what all have in common: the catalog."""
        return next(iter(self._teams.values())).bundle

    def named(self, name: str) -> Team | None:
        """Return a team, if it is served."""
        return self._teams.get(name)

    def largest(self) -> Team:
        """Return the team with the largest share."""
        return max(self._teams.values(), key=lambda team: team.share)

    def chosen(self, session: str, policy: str | None) -> Team:
        """Return the team of a new session: the one it asks for, or one by its share.

        Raises:
            RefusedError: there is no such team.
        """
        if policy is not None:
            if policy not in self._teams:
                known = f"no policy '{short(policy)}' (known: {', '.join(self._teams)})"
                raise RefusedError("unknown_policy", f"there is {known}")
            return self._teams[policy]
        teams = [team for team in self._teams.values() if team.share > 0]
        place = int(session[:8], 16) / 2**32 * sum(team.share for team in teams)
        for team in teams[:-1]:
            place -= team.share
            if place < 0:
                return team
        return teams[-1]

    def told(self) -> list[dict[str, Any]]:
        """Return the teams in plain types."""
        return [
            {
                "name": name,
                "version": team.bundle.version,
                "share": team.share,
                "components": list(team.bundle.pipeline.components),
                "slate_size": team.engine.slate_size,
                "candidates": team.engine.config.candidates,
                "explore": team.engine.explore,
                "privacy": team.bundle.privacy,
                "replays": team.place is not None and replays_of(team.place).is_file(),
            }
            for name, team in self._teams.items()
        ]

    def replays(self, name: str) -> dict[str, Any]:
        """Return the simulated sessions that were written beside a team's bundle.

        Raises:
            RefusedError: there are none, or they are of another version of the team.
        """
        team = self._teams.get(name)
        place = None if team is None or team.place is None else replays_of(team.place)
        if team is None or place is None or not place.is_file():
            raise RefusedError("not_found", f"there are no replays of '{short(name)}'")
        found: dict[str, Any] = read_json(place, dict[str, Any])
        if found.get("version") != team.bundle.version:
            raise RefusedError(
                "not_found", f"the replays of '{short(name)}' are of another version of it"
            )
        return found

    def items(self, query: str, limit: int) -> list[dict[str, str]]:
        """Return items whose title contains a text, most popular first."""
        bundle, wanted, found = self.first, query.casefold(), list[dict[str, str]]()
        for place, title in bundle.searched:
            if wanted in title:
                found.append(item_told(bundle, place))
                if len(found) == limit:
                    break
        return found


def replays_of(bundle: Path) -> Path:
    """Return where simulated sessions lie that were written beside a bundle's folder
    (:mod:`agents.service.replays`).
    """
    return bundle.with_name(f"{bundle.name}.replays.json")


def _hand_set(bundle: Bundle) -> Bundle:
    """Return the same team, whose components play their defaults."""
    version = hashlib.sha256(f"{bundle.version} {STATIC}".encode()).hexdigest()
    short_version = version[: len(bundle.version)]
    return replace(bundle, name=STATIC, version=short_version, policy=None)


def _warm_up(engine: Sessions) -> None:
    """Build what the first requests would wait for."""
    [session] = engine.open([past_of(engine.bundle)], [0])
    for _ in range(_WARM_UP):
        session.recommend()
    session.close()


def _check_alike(teams: Sequence[Team], before: Sequence[Team]) -> None:
    """Refuse teams between which sessions could not move.

    Raises:
        ConfigError: one lacks items of another, or has slates of another size.
    """
    for team in teams:
        for other in (*before, *teams):
            mine, theirs = team.bundle, other.bundle
            if missing := theirs.places.keys() - mine.places.keys():
                raise ConfigError(
                    f"bundle '{mine.name}' lacks item '{min(missing)}' of '{theirs.name}'; serve "
                    "bundles of one catalog"
                )
            if team.engine.slate_size != other.engine.slate_size:
                raise ConfigError(
                    f"bundle '{mine.name}' has slates of {team.engine.slate_size} items, "
                    f"'{theirs.name}' of {other.engine.slate_size}; serve bundles of one size"
                )
