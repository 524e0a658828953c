"""RLlib's multi-agent env runner over a vector environment, batched over sessions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from gymnasium import spaces
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.utils.metrics import (
    NUM_AGENT_STEPS_SAMPLED,
    NUM_AGENT_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
    WEIGHTS_SEQ_NO,
)

from agents.learners.collector import Collector
from agents.learners.networks import Actor
from agents.learners.rollout_batch import RolloutBatch
from marec_env.vector import VectorEnv

__all__ = ["BatchedEnvRunner"]

_RESTART_STRIDE = 1_000_003  # a prime; keeps a restarted runner's sessions off its first ones


class _EnvShim:
    """What RLlib's base class asks of an environment: spaces, ``unwrapped`` and ``close``."""

    def __init__(self, env: VectorEnv) -> None:
        self.vector = env
        self.num_envs = env.num_envs
        self.observation_space = self.single_observation_space = spaces.Dict(
            dict(env.observation_spaces)
        )
        self.action_space = self.single_action_space = spaces.Dict(dict(env.action_spaces))
        self.observation_spaces = dict(env.observation_spaces)
        self.action_spaces = dict(env.action_spaces)
        self.possible_agents = self.agents = list(env.agents)

    @property
    def unwrapped(self) -> _EnvShim:
        """Itself."""
        return self

    def get_observation_space(self, agent: str) -> spaces.Space[Any]:
        """Return an agent's observation space."""
        return self.observation_spaces[agent]

    def get_action_space(self, agent: str) -> spaces.Space[Any]:
        """Return an agent's action space."""
        return self.action_spaces[agent]

    def close(self) -> None:
        """Close the environment."""
        self.vector.close()


class BatchedEnvRunner(MultiAgentEnvRunner):
    """Samples rollouts ``[B, T]`` instead of episodes.

    ``config.env_config`` holds ``factory`` (sessions to VectorEnv), ``team``, ``seed``,
    ``rollout_length``, ``keep_next_observations`` and ``torch_threads``. Neither connectors nor
    episode callbacks run: actions are clipped and observations normalised by the modules.
    """

    env: _EnvShim | None
    # RLlib builds no environment on a local runner beside remote ones.
    _collector: Collector | None = None
    _seed_offset = 0

    def make_env(self) -> None:
        """Build the vector environment."""
        settings = self.config.env_config
        if settings["torch_threads"] is not None:
            torch.set_num_threads(settings["torch_threads"])
        factory: Callable[[int], VectorEnv] = settings["factory"]
        if self.env is not None:
            self.env.close()
        self.env = _EnvShim(factory(self.config.num_envs_per_env_runner))
        self.num_envs = self.env.num_envs
        self._collector = None
        self._seed_offset = 0

    def actors(self) -> dict[str, Actor]:
        """Return the actor networks by name."""
        return {name: self.module[name].net for name in self.config.env_config["team"].actors}

    @property
    def collector(self) -> Collector:
        """The collector; it is built, and the environment reset, at first use."""
        if self._collector is None:
            assert self.env is not None
            settings = self.config.env_config
            self._collector = Collector(
                self.env.vector,
                settings["team"],
                self.actors(),
                settings["seed"] + self._seed_offset,
                index=self.worker_index or 0,
                keep_next_observations=settings["keep_next_observations"],
            )
        return self._collector

    def sample(self, **kwargs: Any) -> RolloutBatch:
        """Return the next rollout."""
        batch = RolloutBatch(self.collector.collect(self.config.env_config["rollout_length"]))
        env_steps, agent_steps = batch.env_steps(), batch.agent_steps()
        self.num_env_steps_sampled_lifetime += env_steps
        self.metrics.log_value(WEIGHTS_SEQ_NO, self._weights_seq_no, window=1)
        self.metrics.log_value(NUM_ENV_STEPS_SAMPLED, env_steps, reduce="sum")
        self.metrics.log_value(
            NUM_ENV_STEPS_SAMPLED_LIFETIME, env_steps, reduce="lifetime_sum", with_throughput=True
        )
        self.metrics.log_value((NUM_AGENT_STEPS_SAMPLED, "all"), agent_steps, reduce="sum")
        self.metrics.log_value(
            (NUM_AGENT_STEPS_SAMPLED_LIFETIME, "all"), agent_steps, reduce="lifetime_sum"
        )
        self.metrics.log_value(NUM_EPISODES, int(batch.metrics["episodes_ended"]), reduce="sum")
        return batch

    def get_metrics(self) -> Any:
        """Return what was logged since the last call."""
        return self.metrics.reduce()

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the base class's state and, unless components are named, the collector's."""
        state: dict[str, Any] = super().get_state(
            components, not_components=not_components, **kwargs
        )
        if components is None and self.env is not None:
            state["collector"] = self.collector.state_dict()
        return state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a state; a runner restarted in mid-run draws sessions of its own."""
        seq_no = int(state.get(WEIGHTS_SEQ_NO, 0))
        fresh = self._collector is None and "collector" not in state
        if fresh and seq_no > 1 and COMPONENT_RL_MODULE in state:
            self._seed_offset = seq_no * _RESTART_STRIDE
        super().set_state(dict(state))
        if "collector" in state:
            self.collector.load_state_dict(state["collector"])

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
