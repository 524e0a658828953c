"""The sessions of an evaluation, on which trained policies meet baselines."""

from __future__ import annotations

import fcntl
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from agents.baselines import BASELINES, build_baseline
from agents.config import EvaluationConfig, RunConfig
from agents.learners.policy import TrainedPolicy
from agents.pettingzoo_adapter import PettingZooConfig, make_pettingzoo
from agents.pettingzoo_rollout import MaskedPolicy, play_episodes
from agents.runs.environment import evaluation_world
from marec_env.errors import ConfigError
from marec_env.evaluation.policies import Policy, SlatePolicy, TeamPolicy
from marec_env.evaluation.rollout import RolloutResult, rollout
from marec_env.registry import is_own, names_own, naming, searched
from marec_env.simulator import Simulator
from marec_env.world import World

RANDOM = "random"
_TRIAL = 2  # sessions on which a user's own baseline is tried


class BaselineCohort(ABC):
    """Sessions on which trained policies meet baselines; each baseline plays them once."""

    watched: ClassVar[tuple[str, ...]]
    """Outcomes whose curves are drawn while a team trains."""

    def __init__(
        self, settings: EvaluationConfig, names: Sequence[str], world: object, shared: Path | None
    ) -> None:
        """Build the baselines, before hours of training rather than after.

        Args:
            settings: how many sessions, and their seed.
            names: of baselines.
            world: on which they are, as JSON takes it.
            shared: a folder in which other runs, also in other processes, leave what came of
                baselines on the same sessions, and find it.

        Raises:
            ConfigError, PluginError: a baseline cannot be built.
        """
        self.settings, self.names, self._shared = settings, names, shared
        self._about = [world, settings.sessions, settings.seed]
        missing = [n for n in names if not (p := self._place(n)) or not p.exists()]
        self._make = self._prepare(missing)

    def play(self, policy: Any) -> RolloutResult:
        """Return what came of a policy; trained teams play as ``evaluation.play`` says."""
        if isinstance(policy, TrainedPolicy):
            policy = policy.playing(self.settings.play == "sampled")
        return self._roll_out(policy)

    @abstractmethod
    def _roll_out(self, policy: Any) -> RolloutResult:
        """Return what came of a policy."""

    @abstractmethod
    def _prepare(self, names: Sequence[str]) -> Callable[[], dict[str, Any]]:
        """Build baselines; return a function that hands them out as new."""

    @property
    def best(self) -> str:
        """The metric by which the best of a run's evaluations is told."""
        wanted = self.settings.best
        return f"evaluation/{wanted if wanted in self.watched else self.watched[-1]}"

    @cached_property
    def outcomes(self) -> dict[str, RolloutResult]:
        """What came of each baseline."""
        made = self._make()
        return {name: self._played(name, made.get(name)) for name in self.names}

    def _played(self, name: str, baseline: Any) -> RolloutResult:
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
        about = [*self._about, name]
        about.append(searched() if names_own(about) else [])  # where code of that name lies
        digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()
        return self._shared / f"{digest}.safetensors"

    def point(self, policy: Any) -> dict[str, float]:
        """Return a point of learning curves: ``evaluation/<outcome>`` of a policy in training, and
        ``evaluation/<outcome>/<baseline>``, which stay the same.
        """
        means = {"": self.play(policy).means()}
        means |= {f"/{name}": found.means() for name, found in self.outcomes.items()}
        return {
            f"evaluation/{outcome}{name}": found[outcome]
            for name, found in means.items()
            for outcome in self.watched
        }


class EvaluationCohort(BaselineCohort):
    """Of the recommender."""

    watched = ("clicks", "satisfaction", "length", "return")

    def __init__(
        self, world: World, settings: EvaluationConfig, shared: Path | None = None
    ) -> None:
        """Arguments as of :class:`BaselineCohort`; errors as of :func:`prepare_baselines`."""
        self._world = world
        about = [world.config.model_dump(mode="json"), world.log.fingerprint]
        super().__init__(settings, settings.baselines, about, shared)

    def _roll_out(self, policy: Policy) -> RolloutResult:
        return rollout(self._world, policy, self.settings.sessions, self.settings.seed)

    def _prepare(self, names: Sequence[str]) -> Callable[[], dict[str, Any]]:
        return prepare_baselines(self._world, names)


class EpisodeCohort(BaselineCohort):
    """Of other people's environments: episodes against random play, or a policy of one's own."""

    watched = ("length", "return")

    def __init__(
        self, environment: PettingZooConfig, settings: EvaluationConfig, shared: Path | None = None
    ) -> None:
        """Arguments as of :class:`BaselineCohort`.

        Raises:
            ConfigError: the environment cannot be made, or none of the baselines plays there.
        """
        self._env: Any = make_pettingzoo(environment)
        names = [name for name in settings.baselines if name == RANDOM or is_own(name)]
        if settings.baselines and not names:
            raise ConfigError(
                f"evaluation.baselines: {', '.join(settings.baselines)} recommend items, and "
                f"environment.kind pettingzoo has none; '{RANDOM}' plays there, and a "
                "package.module:factory of your own"
            )
        super().__init__(settings, names, environment.model_dump(mode="json"), shared)

    def _roll_out(self, policy: MaskedPolicy) -> RolloutResult:
        return play_episodes(self._env, policy, self.settings.sessions, self.settings.seed)

    def _prepare(self, names: Sequence[str]) -> Callable[[], dict[str, Any]]:
        return lambda: {name: build_baseline(name, self._env) for name in names}


def cohort_of(
    config: RunConfig, settings: EvaluationConfig, shared: Path | None = None
) -> BaselineCohort:
    """Return the sessions on which a run is evaluated.

    Raises:
        ConfigError, PluginError: its environment or a baseline cannot be built.
    """
    if isinstance(config.environment, PettingZooConfig):
        return EpisodeCohort(config.environment, settings, shared)
    world = evaluation_world(config.model_copy(update={"evaluation": settings}))
    return EvaluationCohort(world, settings, shared)


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
