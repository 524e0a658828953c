"""The trainer: iterate, save, restore, and hand out the policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from agents.learners.checkpoint import atomic_folder, load_tree, save_tree
from agents.learners.config import (
    AlgorithmConfig,
    HAPPOConfig,
    IPPOConfig,
    MAPPOConfig,
    RLlibConfig,
    SamplingConfig,
    VDNConfig,
)
from agents.learners.engines import Engine, LocalEngine, RayEngine
from agents.learners.policy import TrainedPolicy
from agents.learners.policy_files import save_policy
from agents.learners.vdn import VDNEngine
from marec_env.errors import ConfigError, RunError
from marec_env.vector import VectorEnv

__all__ = ["Trainer"]

_STATE = "trainer"


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
    ) -> None:
        """Args:
        algorithm: which learner, with its settings.
        sampling: sessions, rollout length, runners, learners, devices.
        seed: of networks, environments and draws.
        env_factory: number of sessions to environment; picklable if runners are remote.
        """
        self.algorithm = algorithm
        self.sampling = sampling
        self.seed = seed
        self.env_steps = 0
        self.agent_steps = 0
        self.iterations = 0
        self._engine = _engine(algorithm, sampling, seed, env_factory)

    def iterate(self) -> dict[str, float]:
        """Do one iteration.

        Returns:
            flat metrics: lifetime ``env_steps``, ``agent_steps`` and ``iterations``; means of the
            environment's step metrics, and of ended episodes as ``episode/<name>``; per network
            ``entropy/``, ``kl/``, ``clip_fraction/``, ``ratio/``, ``gradient_norm/``,
            ``explained_variance/``, losses; times in seconds as ``time/``.
        """
        metrics = self._engine.iterate(self.env_steps)
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
        """Write a checkpoint folder, whole or not at all.

        It holds ``trainer.json`` and ``trainer.safetensors`` (all state), and ``policy.json`` with
        one ``actors/<name>.safetensors`` a component, which :func:`load_policy` reads alone.

        Raises:
            RunError: it cannot be written.
        """
        with atomic_folder(folder) as temporary:
            save_tree(
                temporary,
                _STATE,
                {
                    "algorithm": TypeAdapter(AlgorithmConfig).dump_python(
                        self.algorithm, mode="json"
                    ),
                    "env_steps": self.env_steps,
                    "agent_steps": self.agent_steps,
                    "iterations": self.iterations,
                    "engine": self._engine.state_dict(),
                },
            )
            if not isinstance(self.algorithm, RLlibConfig):
                save_policy(temporary, self._engine.team, self._engine.actors())

    def restore(self, folder: str | Path) -> None:
        """Continue from a checkpoint folder.

        Raises:
            RunError: it is missing, damaged, or of another algorithm, network or environment.
        """
        state: dict[str, Any] = load_tree(Path(folder), _STATE)
        self._check_kind(folder, state)
        try:
            self._engine.load_state_dict(state["engine"])
        except (KeyError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise RunError(
                f"checkpoint {folder} does not fit this run's networks or environment: {reason}"
            ) from error
        self.env_steps = state["env_steps"]
        self.agent_steps = state["agent_steps"]
        self.iterations = state["iterations"]

    def _check_kind(self, folder: str | Path, state: Mapping[str, Any]) -> None:
        kind = state["algorithm"]["kind"]
        if kind != self.algorithm.kind:
            raise RunError(
                f"checkpoint {folder} is of algorithm '{kind}', the run of '{self.algorithm.kind}'"
            )

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
        state: dict[str, Any] = load_tree(Path(folder), _STATE)
        self._check_kind(folder, state)
        try:
            self._engine.load_networks(state["engine"])
        except (KeyError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise RunError(
                f"the networks of {folder} do not fit this run's components: {reason}"
            ) from error

    def close(self) -> None:
        """Release processes and environments."""
        self._engine.close()


def _engine(
    algorithm: AlgorithmConfig,
    sampling: SamplingConfig,
    seed: int,
    env_factory: Callable[[int], VectorEnv],
) -> Engine:
    if isinstance(algorithm, MAPPOConfig | IPPOConfig | HAPPOConfig):
        remote = sampling.num_env_runners > 0 or sampling.num_learners > 0
        return (RayEngine if remote else LocalEngine)(algorithm, sampling, seed, env_factory)
    if isinstance(algorithm, VDNConfig):
        return VDNEngine(algorithm, sampling, seed, env_factory)
    # Importing RLlib's algorithm registry takes seconds; only stock runs pay for it.
    from agents.learners.stock import StockEngine

    return StockEngine(algorithm, sampling, seed, env_factory)
