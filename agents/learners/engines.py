"""What the trainer drives: an engine does one iteration and knows its state."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from agents.learners.cloning import clone
from agents.learners.collector import Collector, Rollout
from agents.learners.config import PPOFamily, SamplingConfig
from agents.learners.networks import Actor
from agents.learners.ray_session import check_local_gpus
from agents.learners.team import TeamSpec
from marec_env.config import usable_device
from marec_env.vector import VectorEnv

__all__ = ["Engine", "LocalEngine", "iteration_metrics"]


class Engine(Protocol):
    """One algorithm at work on one environment."""

    team: TeamSpec

    def iterate(self, env_steps_done: int) -> dict[str, float]:
        """Gather experience and learn from it once.

        Returns:
            metrics, among them ``env_steps`` and ``agent_steps`` of this iteration.
        """
        ...

    def actors(self) -> dict[str, Actor]:
        """Return the current actors by name."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that an exact continuation needs."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        ...

    def load_networks(self, state: Mapping[str, Any]) -> None:
        """Take over the networks alone from what another run's :meth:`state_dict` returned."""
        ...

    def close(self) -> None:
        """Release processes and environments."""
        ...


def iteration_metrics(
    gathered: Rollout, start: float, sampled: float, **learnt: float
) -> dict[str, float]:
    """Return what an iteration of a local engine reports.

    Args:
        gathered: a rollout.
        start: seconds at which sampling began.
        sampled: seconds at which it ended, and learning began, which ends now.
        learnt: numbers of the learner.
    """
    return {
        **gathered.metrics,
        **learnt,
        "env_steps": float(gathered.env_steps),
        "agent_steps": float(gathered.decisions),
        "time/sample_s": sampled - start,
        "time/update_s": time.perf_counter() - sampled,
    }


class LocalEngine:
    """A collector and RLlib's learner in this process, without starting Ray; exactly repeatable."""

    def __init__(
        self, algorithm: PPOFamily, sampling: SamplingConfig, seed: int,
        env_factory: Callable[[int], VectorEnv],
    ) -> None:  # fmt: skip
        from agents.learners.algorithm import rllib_config
        from agents.learners.learner import TeamLearner

        check_local_gpus(sampling)
        if sampling.torch_threads is not None:
            torch.set_num_threads(sampling.torch_threads)
        device = usable_device("sampling.device", sampling.device or "cpu")
        if device.type == "cpu" and sampling.gpus_per_learner:
            device = torch.device("cuda:0")
        env = env_factory(sampling.num_sessions)
        self.team = TeamSpec.of(env, algorithm.share_parameters)
        config = rllib_config(algorithm, sampling, self.team, env_factory, seed)
        # RLlib would start Ray to find a device.
        config.learners(num_gpus_per_learner=0)
        config.learner_config_dict["device"] = device
        # RLlib seeds every global generator; the process that calls us keeps its own.
        with torch.random.fork_rng(devices=[]):
            self.learner = TeamLearner(config=config, module_spec=config.rl_module_spec)
            self.learner.build()
        self.collector = Collector(
            env, self.team, self.actors(), seed,
            keep_next_observations=algorithm.critic_input != "state",
        )  # fmt: skip
        self._algorithm, self._sampling, self._seed = algorithm, sampling, seed
        self._env_factory = env_factory

    def sample(self) -> Any:
        """Return the next rollout, as RLlib's batch."""
        from agents.learners.rl_modules import RolloutBatch

        return RolloutBatch(self.collector.collect(self._sampling.rollout_length))

    def iterate(self, env_steps_done: int) -> dict[str, float]:
        """Sample, update, sync; before the very first sample, clone if that is configured."""
        from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

        cloned, cloning = {}, self._algorithm.cloning
        if cloning is not None and env_steps_done == 0:
            # An environment of its own: the run's must start as if nothing had been played.
            env = self._env_factory(self._sampling.num_sessions)
            cloned = clone(cloning, env, self.team, self.actors(), self._seed)
            env.close()
            self.collector.sync()
        start = time.perf_counter()
        batch = self.sample()
        sampled = time.perf_counter()
        steps = env_steps_done + batch.env_steps()
        self.learner.update(
            batch=batch, timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: steps}, _no_metrics_reduce=True
        )
        self.collector.sync()
        return iteration_metrics(batch.rollout, start, sampled, **cloned, **self.learner.statistics)

    def actors(self) -> dict[str, Actor]:
        """Return the learner's actors."""
        return {name: self.learner.module[name].unwrapped().net for name in self.team.actors}

    def state_dict(self) -> dict[str, Any]:
        """Return learner and collector states."""
        return {
            "learner": self.learner.training_state(),
            "collectors": [self.collector.state_dict()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self.learner.load_training_state(state["learner"])
        self.collector.load_state_dict(state["collectors"][0])
        self.collector.sync()

    def load_networks(self, state: Mapping[str, Any]) -> None:
        """Take over the networks of a state."""
        self.learner.load_networks(state["learner"]["modules"])
        self.collector.sync()

    def close(self) -> None:
        """Close the environment."""
        self.collector.env.close()
