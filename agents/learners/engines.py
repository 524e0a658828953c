"""What the trainer drives: an engine does one iteration and knows its state."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from agents.learners.cloning import clone
from agents.learners.collector import Collector
from agents.learners.config import SamplingConfig
from agents.learners.networks import Actor
from agents.learners.ray_session import check_local_gpus, start_ray
from agents.learners.rollout_batch import RolloutBatch
from agents.learners.team import TeamSpec
from marec_env.config import usable_device
from marec_env.errors import ConfigError
from marec_env.vector import VectorEnv

__all__ = ["Engine", "LocalEngine", "RayEngine"]


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
        """Return the current actors by name, on the CPU."""
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


class LocalEngine:
    """A collector and RLlib's learner in this process, without starting Ray; exactly repeatable."""

    def __init__(
        self,
        algorithm: Any,
        sampling: SamplingConfig,
        seed: int,
        env_factory: Callable[[int], VectorEnv],
    ) -> None:
        from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

        from agents.learners.algorithm import rllib_config
        from agents.learners.learner import TeamLearner

        check_local_gpus(sampling)
        if sampling.torch_threads is not None:
            torch.set_num_threads(sampling.torch_threads)
        env = env_factory(sampling.num_sessions)
        self.team = TeamSpec.of(env, algorithm.share_parameters)
        config = rllib_config(algorithm, sampling, self.team, env_factory, seed)
        # RLlib seeds every global generator; the process that calls us keeps its own.
        with torch.random.fork_rng(devices=[]):
            self.learner = TeamLearner(config=config, module_spec=config.rl_module_spec)
            self.learner.build()
        device = usable_device("sampling.device", sampling.device)
        # Collector and learner share the actors when they share a device: nothing to sync.
        self._shared = self.learner.device == device
        actors = self.actors()
        if not self._shared:
            actors = {name: copy.deepcopy(actor).to(device) for name, actor in actors.items()}
        self._acting = actors
        self.collector = Collector(
            env,
            self.team,
            actors,
            seed,
            keep_next_observations=algorithm.critic_input != "state",
        )
        self._algorithm, self._sampling, self._seed = algorithm, sampling, seed
        self._env_factory = env_factory
        self._lifetime_key = NUM_ENV_STEPS_SAMPLED_LIFETIME

    def _sync(self) -> None:
        if not self._shared:
            for name, actor in self.actors().items():
                self._acting[name].load_state_dict(actor.state_dict())

    def sample(self) -> RolloutBatch:
        """Return the next rollout."""
        return RolloutBatch(self.collector.collect(self._sampling.rollout_length))

    def iterate(self, env_steps_done: int) -> dict[str, float]:
        """Sample, update, sync; before the very first sample, clone if that is configured."""
        cloned, cloning = {}, self._algorithm.cloning
        if cloning is not None and env_steps_done == 0:
            # An environment of its own: the run's must start as if nothing had been played.
            env = self._env_factory(self._sampling.num_sessions)
            cloned = clone(cloning, env, self.team, self.actors(), self._seed)
            env.close()
            self._sync()
        start = time.perf_counter()
        batch = self.sample()
        sampled = time.perf_counter()
        steps = env_steps_done + batch.env_steps()
        self.learner.update(
            batch=batch, timesteps={self._lifetime_key: steps}, _no_metrics_reduce=True
        )
        self._sync()
        updated = time.perf_counter()
        return {
            **batch.metrics,
            **cloned,
            **self.learner.statistics,
            "env_steps": float(batch.env_steps()),
            "agent_steps": float(batch.agent_steps()),
            "time/sample_s": sampled - start,
            "time/update_s": updated - sampled,
        }

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
        self._sync()

    def load_networks(self, state: Mapping[str, Any]) -> None:
        """Take over the networks of a state."""
        self.learner.load_networks(state["learner"]["modules"])
        self._sync()

    def close(self) -> None:
        """Close the environment."""
        self.collector.env.close()


class RayEngine:
    """RLlib's Algorithm with remote runners or learners."""

    def __init__(
        self,
        algorithm: Any,
        sampling: SamplingConfig,
        seed: int,
        env_factory: Callable[[int], VectorEnv],
    ) -> None:
        from agents.learners.algorithm import rllib_config

        if algorithm.cloning is not None:
            raise ConfigError(
                "algorithm.cloning needs a local run: set sampling.num_env_runners and"
                " sampling.num_learners to 0"
            )
        self._stop_ray = start_ray(sampling)
        env = env_factory(1)
        self.team = TeamSpec.of(env, algorithm.share_parameters)
        env.close()
        config = rllib_config(algorithm, sampling, self.team, env_factory, seed)
        self.algorithm = config.build_algo()
        self._config = algorithm

    def iterate(self, env_steps_done: int) -> dict[str, float]:
        """Do one training step; with every runner dead it gathers nothing."""
        start = time.perf_counter()
        result = self.algorithm.train()
        batch = self.algorithm.last_batch
        elapsed = {"time/iteration_s": time.perf_counter() - start}
        if batch is None:
            return {"env_steps": 0.0, "agent_steps": 0.0, **elapsed}
        timers = result.get("timers", {})
        learner = {
            key: float(value)
            for key, value in result.get("learners", {}).get("__all_modules__", {}).items()
            if "/" in key
        }
        return {
            **batch.metrics,
            **learner,
            **elapsed,
            "env_steps": float(batch.env_steps()),
            "agent_steps": float(batch.agent_steps()),
            "time/sample_s": float(timers.get("env_runner_sampling_timer", 0.0)),
            "time/update_s": float(timers.get("learner_update_timer", 0.0)),
            "healthy_runners": float(self.algorithm.env_runner_group.num_healthy_remote_workers()),
        }

    def actors(self) -> dict[str, Actor]:
        """Return copies of the learners' actors."""
        state = self._learner_states()[0]["modules"]
        found = {}
        for name in self.team.actors:
            actor = self.team.build_actor(self._config, name)
            prefix = "net."
            actor.load_state_dict(
                {k.removeprefix(prefix): torch.as_tensor(v) for k, v in state[name].items()}
            )
            found[name] = actor
        return found

    def _learner_states(self) -> list[dict[str, Any]]:
        group = self.algorithm.learner_group
        if group.is_local:
            return [group._learner.training_state()]
        results = group.foreach_learner(lambda learner: learner.training_state())
        return [result.get() for result in results]

    def state_dict(self) -> dict[str, Any]:
        """Return the first learner's state (all are equal) and each healthy runner's collector."""
        collectors = self.algorithm.env_runner_group.foreach_env_runner(
            lambda runner: runner.collector.state_dict(),
            local_env_runner=self.algorithm.config.num_env_runners == 0,
        )
        return {"learner": self._learner_states()[0], "collectors": list(collectors)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state; runners without a collector's state start anew."""
        learner = dict(state["learner"])
        self._on_learners(lambda one: one.load_training_state(learner))
        self._restore_runners(learner["modules"], int(learner["updates"]), state["collectors"])

    def load_networks(self, state: Mapping[str, Any]) -> None:
        """Take over the networks of a state."""
        modules = dict(state["learner"]["modules"])
        self._on_learners(lambda one: one.load_networks(modules))
        self._restore_runners(modules, 0, [])

    def _on_learners(self, function: Callable[[Any], None]) -> None:
        group = self.algorithm.learner_group
        if group.is_local:
            function(group._learner)
        else:
            group.foreach_learner(function)

    def _restore_runners(
        self, modules: Mapping[str, Any], updates: int, collectors: Sequence[Mapping[str, Any]]
    ) -> None:
        weights = {name: modules[name] for name in self.team.actors}
        states = list(collectors)

        def restore(runner: Any) -> None:
            runner.continue_from(weights, updates, states)

        self.algorithm.env_runner_group.foreach_env_runner(
            restore, local_env_runner=self.algorithm.config.num_env_runners == 0
        )

    def close(self) -> None:
        """Stop the algorithm, and Ray if it was started here."""
        self.algorithm.stop()
        self._stop_ray()
