"""The trainer: iterate, save, restore, and hand out the policy."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from safetensors import SafetensorError

from agents.learners.config import (
    AlgorithmConfig,
    OwnConfig,
    PPOFamily,
    RLlibConfig,
    SamplingConfig,
    VDNConfig,
)
from agents.learners.engines import Engine, SeedBatch, local_engine
from agents.learners.policy import TrainedPolicy, load_policy, save_policy
from agents.learners.tree import load_tree, save_tree
from agents.learners.vdn import VDNEngine
from marec_env.errors import ConfigError, RunError
from marec_env.vector import VectorEnv

__all__ = ["Trainer"]

_STATE = "trainer"
_PATIENCE = 180.0  # seconds in which dead runners should have come back


class Trainer:
    """Trains a team on any vector environment.

    With a local runner and learner (the default) a run is exactly repeatable, and a restored run
    continues exactly.
    """

    def __init__(
        self,
        algorithm: AlgorithmConfig,
        sampling: SamplingConfig,
        seed: int,
        env_factory: Callable[[int], VectorEnv],
        engine: Engine | None = None,
    ) -> None:
        """Args:
        algorithm: which learner, with its settings.
        sampling: sessions, rollout length, runners, learners, devices.
        seed: of networks, environments and draws.
        env_factory: number of sessions to environment; picklable if runners are remote.
        engine: what does the work; by default one of its own.
        """
        self.algorithm = algorithm
        self.sampling = sampling
        self.seed = seed
        self.env_steps = 0
        self.agent_steps = 0
        self.iterations = 0
        self._idle = 0.0
        self._engine = engine or _engine(algorithm, sampling, seed, env_factory)

    @classmethod
    def of_seeds(
        cls,
        algorithm: PPOFamily,
        sampling: SamplingConfig,
        seeds: Sequence[int],
        env_factory: Callable[[int], VectorEnv],
    ) -> list[Trainer]:
        """Return a trainer a seed, whose teams play side by side in one environment.

        They go on in step: whichever is asked first for an iteration does it for all.

        Args:
            algorithm: which learner; none with runners or learners of their own processes.
            sampling: as of one trainer; ``num_sessions`` are each seed's.
            seeds: see the class.
            env_factory: of an environment that takes a seed for each session.
        """
        engines = SeedBatch(algorithm, sampling, seeds, env_factory).engines
        return [
            cls(algorithm, sampling, seed, env_factory, engine)
            for seed, engine in zip(seeds, engines, strict=True)
        ]

    def iterate(self) -> dict[str, float]:
        """Do one iteration.

        Returns:
            flat metrics: lifetime ``env_steps``, ``agent_steps`` and ``iterations``; means of the
            environment's step metrics, and of ended episodes as ``episode/<name>``; per network
            ``entropy/``, ``kl/``, ``clip_fraction/``, ``ratio/``, ``gradient_norm/``,
            ``explained_variance/``, losses; times in seconds as ``time/``.

        Raises:
            RunError: nothing has been gathered for minutes.
        """
        began = time.monotonic()
        metrics = self._engine.iterate(self.env_steps)
        self._idle = 0.0 if metrics["env_steps"] else self._idle + time.monotonic() - began
        if self._idle > _PATIENCE:
            raise RunError(
                f"no runner has gathered anything for {_PATIENCE:.0f} s: they die as soon as they "
                "start; try sampling.num_env_runners=0, which shows why"
            )
        self.env_steps += int(metrics["env_steps"])
        self.agent_steps += int(metrics["agent_steps"])
        self.iterations += 1
        metrics["env_steps"] = float(self.env_steps)
        metrics["agent_steps"] = float(self.agent_steps)
        metrics["iterations"] = float(self.iterations)
        return metrics

    def policy(self) -> Any:
        """Return the current policy, a :class:`TrainedPolicy` (a StockPolicy for kind rllib).

        It follows further training where actors are local.
        """
        if isinstance(self.algorithm, RLlibConfig):
            return self._engine.policy()  # type: ignore[attr-defined]
        return TrainedPolicy(self._engine.team, self._engine.actors(), self.seed)

    def save(self, folder: str | Path) -> None:
        """Write all state into a folder, which is made if missing.

        ``trainer.json`` and ``trainer.safetensors`` hold it; ``policy.json`` with one
        ``actors/<name>.safetensors`` a component is what :func:`load_policy` reads alone. A run
        makes checkpoints of it, which are whole or absent.

        Raises:
            RunError: it cannot be written.
        """
        path = Path(folder)
        kind = TypeAdapter(AlgorithmConfig).dump_python(self.algorithm, mode="json")
        try:
            path.mkdir(parents=True, exist_ok=True)
            save_tree(
                path,
                _STATE,
                {
                    "algorithm": kind,
                    "env_steps": self.env_steps,
                    "agent_steps": self.agent_steps,
                    "iterations": self.iterations,
                    "engine": self._engine.state_dict(),
                },
            )
            if not isinstance(self.algorithm, RLlibConfig):
                save_policy(path, self._engine.team, self._engine.actors())
        except (OSError, SafetensorError) as error:
            raise RunError(f"cannot write {path}: {error}") from error

    def restore(self, folder: str | Path) -> None:
        """Continue from a checkpoint folder.

        Raises:
            RunError: it is missing, damaged, or of another algorithm, network or environment.
        """

        def take(state: dict[str, Any]) -> None:
            self._engine.load_state_dict(state["engine"])
            self.env_steps = state["env_steps"]
            self.agent_steps = state["agent_steps"]
            self.iterations = state["iterations"]

        refusal = "checkpoint {} does not fit this run's networks or environment"
        self._take(Path(folder), take, refusal)

    def begin_with(self, folder: str | Path) -> None:
        """Take over the networks of a checkpoint folder and nothing else: not the count of steps,
        the optimisers' moments (RLlib's own algorithms keep them), the environments or the draws.

        Raises:
            RunError: it is missing, damaged, or of another algorithm or of other networks.
            ConfigError: cloning is configured too.
        """
        if getattr(self.algorithm, "cloning", None) is not None:
            raise ConfigError(
                "--init-from and algorithm.cloning both say how to begin; leave one out"
            )
        path = Path(folder)
        if not isinstance(self.algorithm, RLlibConfig):
            self._check_components(path)
        self._take(
            path,
            lambda state: self._engine.load_networks(state["engine"]),
            "the networks of {} do not fit this run's components",
        )

    def _take(self, folder: Path, take: Callable[[dict[str, Any]], None], refusal: str) -> None:
        """Read a checkpoint and take of it; ``refusal`` says what does not fit."""
        state: dict[str, Any] = load_tree(folder, _STATE)
        try:
            kind = state["algorithm"]["kind"]
            if kind != self.algorithm.kind:
                raise RunError(
                    f"checkpoint {folder} is of algorithm '{kind}', the run of "
                    f"'{self.algorithm.kind}'"
                )
            take(state)
        except (KeyError, TypeError, IndexError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise RunError(f"{refusal.format(folder)}: {reason}") from error

    def _check_components(self, folder: Path) -> None:
        """Refuse networks of other components, naming those that differ and how."""
        theirs, ours = load_policy(folder).team, self._engine.team
        told = [f"'{name}' is there only" for name in theirs.agents if name not in ours.agents]
        for name in ours.agents:
            if name not in theirs.agents:
                told.append(f"'{name}' is here only")
                continue
            sizes = [int(team.observation_spaces[name].shape[0]) for team in (theirs, ours)]
            if sizes[0] != sizes[1]:
                told.append(f"'{name}' observed {sizes[0]} numbers there and {sizes[1]} here")
            if theirs.action_spaces[name] != ours.action_spaces[name]:
                told.append(
                    f"'{name}' acted in {theirs.action_spaces[name]} there and in "
                    f"{ours.action_spaces[name]} here"
                )
        if told:
            reason = " ".join("; ".join(told).split())
            raise RunError(
                f"the networks of {folder} do not fit this run's components: {reason}; components "
                "and networks must be as they were (environment.pipeline, algorithm)"
            )

    def close(self) -> None:
        """Release processes and environments."""
        self._engine.close()


def _engine(
    algorithm: AlgorithmConfig,
    sampling: SamplingConfig,
    seed: int,
    env_factory: Callable[[int], VectorEnv],
) -> Engine:
    if isinstance(algorithm, PPOFamily):
        if not (sampling.num_env_runners or sampling.num_learners):
            return local_engine(algorithm, sampling, seed, env_factory)
        from agents.learners.algorithm import RayEngine

        return RayEngine(algorithm, sampling, seed, env_factory)
    if isinstance(algorithm, VDNConfig):
        return VDNEngine(algorithm, sampling, seed, env_factory)
    if isinstance(algorithm, OwnConfig):
        raise ConfigError(
            f"algorithm.kind own: '{algorithm.name}' trains in a program of its own, which hands in"
            " its policy by agents.record_policy (examples/own_algorithm.py); nothing to train here"
        )
    # Importing RLlib's algorithm registry takes seconds; only stock runs pay for it.
    from agents.learners.stock import StockEngine

    return StockEngine(algorithm, sampling, seed, env_factory)
