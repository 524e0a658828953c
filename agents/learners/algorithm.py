"""Training on remote processes by RLlib: runner, training step, configuration, engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import ray
import torch
from gymnasium import spaces
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
    WEIGHTS_SEQ_NO,
)

from agents.learners.collector import Collector
from agents.learners.config import PPOFamily, SamplingConfig
from agents.learners.learner import TeamLearner
from agents.learners.networks import Actor
from agents.learners.ray_session import start_ray
from agents.learners.rl_modules import RolloutBatch, concatenate, multi_module_spec
from agents.learners.team import TeamSpec
from marec_env.errors import ConfigError
from marec_env.vector import VectorEnv

_RESTART_STRIDE = 1_000_003  # a prime; keeps a restarted runner's sessions off its first ones


class BatchedEnvRunner(EnvRunner):
    """Samples rollouts ``[B, T]`` of a vector environment instead of episodes.

    ``config.env_config`` holds ``factory`` (sessions to VectorEnv), ``team``, ``seed``,
    ``rollout_length``, ``keep_next_observations`` and ``torch_threads``. Neither connectors nor
    episode callbacks run: actions are clipped and observations normalised by the modules.
    """

    def __init__(self, *, config: AlgorithmConfig, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self._settings = self.config.env_config
        self._team: TeamSpec = self._settings["team"]
        self._collector: Collector | None = None
        self._seed_offset = 0
        self._weights_seq_no = 0
        # RLlib samples with the local runner only where there are no remote ones.
        if self.worker_index or not self.config.num_env_runners:
            self.make_env()
        self.make_module()

    def make_env(self) -> None:
        """Build the vector environment."""
        if self._settings["torch_threads"] is not None:
            torch.set_num_threads(self._settings["torch_threads"])
        factory: Callable[[int], VectorEnv] = self._settings["factory"]
        self.env = factory(self.config.num_envs_per_env_runner)

    def make_module(self) -> None:
        """Build the actors."""
        spec = self.config.get_multi_rl_module_spec(spaces=self.get_spaces(), inference_only=True)
        self.module = spec.build()

    @property
    def collector(self) -> Collector:
        """The collector; it is built, and the environment reset, at first use."""
        if self._collector is None:
            self._collector = Collector(
                self.env,
                self._team,
                [{name: self.module[name].net for name in self._team.actors}],
                [self._settings["seed"] + self._seed_offset],
                index=self.worker_index or 0,
                keep_next_observations=self._settings["keep_next_observations"],
            )
        return self._collector

    def sample(self, **kwargs: Any) -> RolloutBatch:
        """Return the next rollout."""
        self.collector.sync()
        batch = RolloutBatch(self.collector.collect(self._settings["rollout_length"]))
        steps = batch.env_steps()
        self.metrics.log_value(NUM_ENV_STEPS_SAMPLED, steps, reduce="sum")  # ends RLlib's sampling
        self.metrics.log_value(NUM_ENV_STEPS_SAMPLED_LIFETIME, steps, reduce="lifetime_sum")
        return batch

    def get_metrics(self) -> Any:
        """Return what was logged since the last call."""
        return self.metrics.reduce()

    def get_spaces(self) -> dict[str, tuple[spaces.Space[Any], spaces.Space[Any]]]:
        """Return observation and action space of each actor."""
        team = self._team
        return {
            name: (team.observation_spaces[agents[0]], team.action_spaces[agents[0]])
            for name, agents in team.actors.items()
        }

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the actors' weights and their number of updates."""
        return {
            COMPONENT_RL_MODULE: self.module.get_state(),
            WEIGHTS_SEQ_NO: self._weights_seq_no,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take newer weights; a runner restarted in mid-run draws sessions of its own."""
        updates = int(state.get(WEIGHTS_SEQ_NO, 0))
        if COMPONENT_RL_MODULE not in state:
            return
        if self._collector is None and updates > 1:
            self._seed_offset = updates * _RESTART_STRIDE
        if updates == 0 or self._weights_seq_no < updates:
            weights = state[COMPONENT_RL_MODULE]
            sent = isinstance(weights, ray.ObjectRef)  # once for all runners
            self.module.set_state(ray.get(weights) if sent else weights)
        self._weights_seq_no = updates or self._weights_seq_no

    def continue_from(
        self,
        weights: Mapping[str, Mapping[str, Any]],
        updates: int,
        collectors: Sequence[Mapping[str, Any]],
    ) -> None:
        """Continue a saved run.

        Args:
            weights: per actor, its module's state dict.
            updates: of the learner so far.
            collectors: states of the runners' collectors, in order; a runner beyond them starts
                sessions of its own.
        """
        for name, state in weights.items():
            self.module[name].load_state_dict(state)
        self._weights_seq_no = updates
        index = max(0, (self.worker_index or 0) - 1)
        if index < len(collectors):
            self.collector.load_state_dict(collectors[index])

    def assert_healthy(self) -> None:
        """Raise unless there is something to sample from."""
        assert self.env is not None

    def stop(self) -> None:
        """Close the environment."""
        if self.env is not None:
            self.env.close()


class TeamAlgorithm(Algorithm):
    """Synchronous: all runners sample ``[B, T]``, the learners update, actors are sent out."""

    def training_step(self) -> None:
        """Do one iteration; an iteration in which every runner died changes nothing."""
        self.last_batch: RolloutBatch | None = None
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            batches, results = synchronous_parallel_sample(
                worker_set=self.env_runner_group,
                concat=False,
                sample_timeout_s=self.config.sample_timeout_s,
                _uses_new_env_runners=True,
                _return_metrics=True,
            )
            if not batches:
                return
            self.metrics.aggregate(results, key=ENV_RUNNER_RESULTS)
        batch = concatenate(batches)
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            done = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME))
            learner_results = self.learner_group.update(
                batch=batch, timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: done}
            )
            self.metrics.aggregate(learner_results, key=LEARNER_RESULTS)
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            self.env_runner_group.sync_weights(
                from_worker_or_learner_group=self.learner_group,
                policies=list(self.config.env_config["team"].actors),
                inference_only=True,
            )
        self.last_batch = batch


class TeamConfig(AlgorithmConfig):
    """RLlib's configuration; what is learned and how, the learner reads from ``algorithm``."""

    def get_default_learner_class(self) -> type[TeamLearner]:
        """Return the learner."""
        return TeamLearner

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return what RLlib fills in where a module is not configured; here all of them are."""
        return RLModuleSpec()


def rllib_config(
    algorithm: PPOFamily,
    sampling: SamplingConfig,
    team: TeamSpec,
    factory: Callable[[int], VectorEnv],
    seed: int,
) -> TeamConfig:
    """Return RLlib's configuration of a run."""
    config: TeamConfig = (
        TeamConfig(algo_class=TeamAlgorithm)
        .environment(
            env="marec-vector-env",
            env_config={
                "factory": factory,
                "team": team,
                "seed": seed,
                "rollout_length": sampling.rollout_length,
                "keep_next_observations": algorithm.critic_input != "state",
                "torch_threads": sampling.torch_threads,
            },
            disable_env_checking=True,
        )
        .multi_agent(policies=list(team.actors), policy_mapping_fn=partial(_actor_of, team))
        .env_runners(
            env_runner_cls=BatchedEnvRunner,
            num_env_runners=sampling.num_env_runners,
            num_envs_per_env_runner=sampling.num_sessions,
            rollout_fragment_length=sampling.rollout_length,
            create_local_env_runner=True,
            validate_env_runners_after_construction=True,
        )
        .learners(
            learner_config_dict={"algorithm": algorithm, "team": team, "seed": seed},
            num_learners=sampling.num_learners,
            num_gpus_per_learner=sampling.gpus_per_learner,
        )
        .rl_module(rl_module_spec=multi_module_spec(algorithm, team))
        .training(
            num_epochs=algorithm.epochs,
            minibatch_size=None,
            train_batch_size_per_learner=max(
                1, sampling.env_steps_per_iteration // max(1, sampling.num_learners)
            ),
        )
        .fault_tolerance(restart_failed_env_runners=True, ignore_env_runner_failures=True)
        .debugging(seed=seed, log_level="ERROR")
    )
    return config


def _actor_of(team: TeamSpec, agent: str, *args: Any, **kwargs: Any) -> str:
    return team.actor_of(agent)[0]


class RayEngine:
    """RLlib's Algorithm with remote runners or learners."""

    def __init__(
        self,
        algorithm: Any,
        sampling: SamplingConfig,
        seed: int,
        env_factory: Callable[[int], VectorEnv],
    ) -> None:
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
            **batch.rollout.metrics,
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
        state = self._learner_state()["modules"]
        found = {}
        for name in self.team.actors:
            actor = self.team.build_actor(self._config, name)
            actor.load_state_dict({k.removeprefix("net."): v for k, v in state[name].items()})
            found[name] = actor
        return found

    def _each_learner(self, function: Callable[[Any], Any]) -> list[Any]:
        group = self.algorithm.learner_group
        if group.is_local:
            return [function(group._learner)]
        return [result.get() for result in group.foreach_learner(function)]

    def _learner_state(self) -> Any:
        return self._each_learner(lambda one: one.training_state())[0]  # all are equal

    def state_dict(self) -> dict[str, Any]:
        """Return a learner's state and each healthy runner's collector."""
        collectors = self._each_runner(lambda runner: runner.collector.state_dict())
        return {"learner": self._learner_state(), "collectors": collectors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state; runners without a collector's state start anew."""
        learner = dict(state["learner"])
        self._each_learner(lambda one: one.load_training_state(learner))
        self._restore_runners(learner["modules"], int(learner["updates"]), state["collectors"])

    def load_networks(self, state: Mapping[str, Any]) -> None:
        """Take over the networks of a state."""
        modules = dict(state["learner"]["modules"])
        self._each_learner(lambda one: one.load_networks(modules))
        self._restore_runners(modules, 0, [])

    def _restore_runners(
        self, modules: Mapping[str, Any], updates: int, collectors: Sequence[Mapping[str, Any]]
    ) -> None:
        weights = {name: modules[name] for name in self.team.actors}
        states = list(collectors)
        self._each_runner(lambda runner: runner.continue_from(weights, updates, states))

    def _each_runner(self, function: Callable[[Any], Any]) -> list[Any]:
        local = self.algorithm.config.num_env_runners == 0
        group = self.algorithm.env_runner_group
        return list(group.foreach_env_runner(function, local_env_runner=local))

    def close(self) -> None:
        """Stop the algorithm, and Ray if it was started here."""
        self.algorithm.stop()
        self._stop_ray()
