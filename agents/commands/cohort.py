"""The sessions of an evaluation, on which trained policies meet baselines."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path

from agents.baselines import BASELINES, build_baseline
from agents.config import EvaluationConfig
from marec_env.errors import ConfigError
from marec_env.evaluation.policies import Policy, SlatePolicy, TeamPolicy
from marec_env.evaluation.rollout import RolloutResult, rollout
from marec_env.registry import is_own, names_own, naming, searched
from marec_env.simulator import Simulator
from marec_env.world import World

__all__ = ["WATCHED", "EvaluationCohort", "prepare_baselines"]

WATCHED = ("clicks", "satisfaction", "length", "return")
"""Outcomes whose curves are drawn while a team trains."""
_TRIAL = 2  # sessions on which a user's own baseline is tried


class EvaluationCohort:
    """Sessions on which trained policies meet baselines; each baseline plays them once."""

    def __init__(
        self, world: World, settings: EvaluationConfig, shared: Path | None = None
    ) -> None:
        """Build the baselines, before hours of training rather than after.

        Args:
            world: whose users these are.
            settings: how many sessions, their seed, and the baselines.
            shared: a folder in which other runs, also in other processes, leave what came of
                baselines on the same sessions, and find it.

        Raises:
            ConfigError, PluginError: see :func:`prepare_baselines`.
        """
        self._world, self._settings, self._shared = world, settings, shared
        missing = [n for n in settings.baselines if not (p := self._place(n)) or not p.exists()]
        self._make = prepare_baselines(world, missing)

    def play(self, policy: Policy) -> RolloutResult:
        """Return what came of a policy."""
        return rollout(self._world, policy, self._settings.sessions, self._settings.seed)

    @cached_property
    def outcomes(self) -> dict[str, RolloutResult]:
        """What came of each baseline."""
        made = self._make()
        return {name: self._played(name, made.get(name)) for name in self._settings.baselines}

    def _played(self, name: str, baseline: Policy | None) -> RolloutResult:
        """Let one process play a baseline; others wait for it and read what came of it."""
        if (place := self._place(name)) is None:
            assert baseline is not None
            return self.play(baseline)
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(place.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the system lets go of it when a process dies
            if not place.exists():
                assert baseline is not None
                self.play(baseline).save(place)
        return RolloutResult.load(place)

    def _place(self, name: str) -> Path | None:
        """Return the file of what came of a baseline; all that it follows from is in its name."""
        if self._shared is None:
            return None
        world, settings = self._world, self._settings
        config = world.config.model_dump(mode="json")
        folders = searched() if names_own(config) or is_own(name) else []
        about = [config, world.log.fingerprint, settings.sessions, settings.seed, name, folders]
        digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()
        return self._shared / f"{digest}.safetensors"

    def point(self, policy: Policy) -> dict[str, float]:
        """Return a point of learning curves: ``evaluation/<outcome>`` of a policy in training, and
        ``evaluation/<outcome>/<baseline>``, which stay the same.
        """
        means = {"": self.play(policy).means()}
        means |= {f"/{name}": found.means() for name, found in self.outcomes.items()}
        return {
            f"evaluation/{outcome}{name}": found[outcome]
            for name, found in means.items()
            for outcome in WATCHED
        }


def prepare_baselines(world: World, names: Sequence[str]) -> Callable[[], dict[str, Policy]]:
    """Build baselines, and try those of the user's own on a few sessions.

    Returns:
        A function that hands them out; a user's own are built anew, as if they had not been tried.

    Raises:
        ConfigError: a baseline is unknown, or no policy.
        PluginError: one of the user's own cannot be built, or fails on its first sessions.
    """
    for name in names:
        BASELINES.get(name)  # an unknown name is told before anything is computed
    if not names:
        return dict
    simulator = Simulator(world, 1, autoreset=False)
    made = {name: _built(name, simulator) for name in names}
    own = [name for name in names if is_own(name)]
    for name in own:
        with naming(f"baseline '{name}' on its first sessions"):
            rollout(world, made[name], _TRIAL, seed=0)
    return lambda: {**made, **{name: _built(name, simulator) for name in own}}


def _built(name: str, simulator: Simulator) -> Policy:
    with naming(f"baseline '{name}'") if is_own(name) else nullcontext():
        found = build_baseline(name, simulator)
    if not isinstance(found, TeamPolicy | SlatePolicy):
        raise ConfigError(
            f"baseline '{name}' is {type(found).__name__}, neither a team's policy (act, reset) "
            "nor one of slates (recommend)"
        )
    return found
