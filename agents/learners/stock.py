"""Any RLlib algorithm on its stock path: one session per environment, episodes, connectors."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from ray.rllib.algorithms.registry import ALGORITHMS
from ray.rllib.core.columns import Columns
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from torch import Tensor

from agents.learners.config import RLlibConfig, SamplingConfig
from agents.learners.ray_session import start_ray
from agents.learners.team import TeamSpec
from marec_env.errors import ConfigError, unknown_name
from marec_env.vector import Action, VecStep, VectorEnv

# RLlib's result keys; the paths are those of version 2.60.
_RUNNERS, _LEARNERS = "env_runners", "learners"


class SessionEnv(MultiAgentEnv):
    """One session of a vector environment as RLlib's multi-agent environment.

    ``config["factory"]`` maps a number of sessions to a VectorEnv. Turns of a sequential
    environment are played as one, on the observations of the step's start.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._vector: VectorEnv = config["factory"](1)
        self._seed = int(config.get("seed", 0)) + 1000 * int(getattr(config, "worker_index", 0))
        self._started = False
        self.agents = list(self._vector.agents)
        self.possible_agents = list(self._vector.agents)
        self.observation_spaces = dict(self._vector.observation_spaces)
        self.action_spaces = dict(self._vector.action_spaces)
        self._next: VecStep | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Go on with the session that autoreset began, or start by the seed."""
        if not self._started or self._next is None:
            self._started = True
            self._next = self._vector.reset(self._seed if seed is None else seed)
        return {a: _row(self._next.observations[a]) for a in self.agents}, {}

    def step(self, actions: Mapping[str, Any]) -> tuple[Any, Any, Any, Any, Any]:
        """Step all agents."""
        batch = {a: _batch(actions[a], self.action_spaces[a]) for a in self.agents}
        step = self._next = self._vector.step(batch)
        over, cut = bool(step.terminated[0]), bool(step.truncated[0])
        source = step.final_observations if over or cut else step.observations
        return (
            {a: _row(source[a]) for a in self.agents},
            {a: float(step.rewards[a][0]) for a in self.agents},
            {"__all__": over},
            {"__all__": cut},
            {},
        )

    def close(self) -> None:
        """Close the vector environment."""
        self._vector.close()


def _row(batch: Tensor) -> Any:
    return batch[0].detach().cpu().numpy().astype(np.float32)


def _batch(action: Any, space: spaces.Space[Any]) -> Action:
    if isinstance(space, spaces.Tuple):
        parts = [_batch(a, s) for a, s in zip(action, space.spaces, strict=True)]
        return tuple(part for part in parts if isinstance(part, Tensor))
    kind = torch.float32 if isinstance(space, spaces.Box) else torch.int64
    return torch.as_tensor(np.asarray(action), dtype=kind).unsqueeze(0)


def stock_config(
    algorithm: RLlibConfig,
    sampling: SamplingConfig,
    team: TeamSpec,
    factory: Callable[[int], VectorEnv],
    seed: int,
) -> Any:
    """Return RLlib's configuration of an algorithm with one module an agent.

    Raises:
        ConfigError: RLlib has no such algorithm, or the algorithm no such setting.
    """
    if algorithm.name not in ALGORITHMS:
        raise ConfigError(
            unknown_name("algorithm.name: RLlib algorithm", algorithm.name, ALGORITHMS)
        )
    _, config = ALGORITHMS[algorithm.name]()
    known = _training_keys(config)
    for key in algorithm.settings:
        if key not in known:
            raise ConfigError(unknown_name(f"algorithm.settings of {algorithm.name}:", key, known))
    without_kl = (
        algorithm.settings.get("use_kl_loss", getattr(config, "use_kl_loss", True)) is False
    )
    for key in ("kl_coeff", "kl_target"):
        if without_kl and key in algorithm.settings:
            raise ConfigError(f"algorithm.settings: {key} has no effect where use_kl_loss is false")
    config = (
        config.environment(
            SessionEnv, env_config={"factory": factory, "seed": seed}, disable_env_checking=True
        )
        .multi_agent(policies=list(team.agents), policy_mapping_fn=_by_name)
        .env_runners(
            num_env_runners=sampling.num_env_runners,
            num_envs_per_env_runner=sampling.num_sessions,
            rollout_fragment_length="auto",
        )
        .learners(
            num_learners=sampling.num_learners, num_gpus_per_learner=sampling.gpus_per_learner
        )
        .debugging(seed=seed, log_level="ERROR")
    )
    batch = max(1, sampling.env_steps_per_iteration // max(1, sampling.num_learners))
    # Asynchronous algorithms report after 10 s by default; an iteration here is a batch of steps.
    config = config.training(train_batch_size_per_learner=batch).reporting(
        min_time_s_per_iteration=None, min_sample_timesteps_per_iteration=batch
    )
    if (getattr(config, "minibatch_size", None) or 0) > batch:
        config = config.training(minibatch_size=batch)
    return config.training(**algorithm.settings)


def _training_keys(config: Any) -> list[str]:
    """Return what the algorithm's ``training()`` takes; other attributes are set elsewhere."""
    methods = [vars(kind)["training"] for kind in type(config).__mro__ if "training" in vars(kind)]
    return sorted(
        {
            name
            for method in methods
            for name, parameter in inspect.signature(method).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
    )


def _by_name(agent: str, *args: Any, **kwargs: Any) -> str:
    return agent


class StockPolicy:
    """Acts greedily with the modules of an RLlib algorithm."""

    def __init__(self, algorithm: Any, team: TeamSpec) -> None:
        self._algorithm, self.team = algorithm, team

    def reset(self) -> None:
        """Do nothing: stock modules are used without memory."""

    @torch.no_grad()
    def act(self, observations: Mapping[str, Tensor], **kwargs: Any) -> dict[str, Action]:
        """Return the most probable actions, ``[B, ...]`` each."""
        actions: dict[str, Action] = {}
        for agent, observation in observations.items():
            module = self._algorithm.get_module(agent)
            out = module.forward_inference({Columns.OBS: observation})
            space = self.team.action_spaces[agent]
            if Columns.ACTIONS in out:
                chosen = out[Columns.ACTIONS]
            else:
                family = module.get_inference_action_dist_cls()
                inputs = out[Columns.ACTION_DIST_INPUTS]
                chosen = family.from_logits(inputs).to_deterministic().sample()
            if isinstance(space, spaces.Box):
                # RLlib's modules act in [-1, 1]; a connector of its runners undoes that.
                low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
                chosen = low + (chosen.clamp(-1.0, 1.0) + 1.0) * (high - low) / 2.0
            actions[agent] = chosen
        return actions


class StockEngine:
    """Drives an RLlib algorithm; networks and optimisers are saved, running episodes are not."""

    def __init__(
        self,
        algorithm: RLlibConfig,
        sampling: SamplingConfig,
        seed: int,
        env_factory: Callable[[int], VectorEnv],
    ) -> None:
        self._stop_ray = start_ray(sampling)
        env = env_factory(1)
        self.team = TeamSpec.of(env)
        env.close()
        config = stock_config(algorithm, sampling, self.team, env_factory, seed)
        try:
            self.algorithm = config.build_algo()
        except (ValueError, NotImplementedError) as error:
            self._stop_ray()
            reason = " ".join(str(error).split())
            raise ConfigError(f"RLlib's {algorithm.name} refuses this run: {reason}") from error
        self._seen = {"env": 0.0, "agent": 0.0}

    def iterate(self, env_steps_done: int) -> dict[str, float]:
        """Do one training iteration of the algorithm."""
        start = time.perf_counter()
        result = self.algorithm.train()
        runners = result.get(_RUNNERS, {})
        env = float(runners.get("num_env_steps_sampled_lifetime", self._seen["env"]))
        per_agent = runners.get("num_agent_steps_sampled_lifetime", {})
        agent = float(sum(per_agent.values())) if per_agent else self._seen["agent"]
        metrics = {
            "env_steps": env - self._seen["env"],
            "agent_steps": agent - self._seen["agent"],
            "time/iteration_s": time.perf_counter() - start,
        }
        self._seen = {"env": env, "agent": agent}
        mean = runners.get("episode_return_mean")
        if mean is not None and np.isfinite(mean):
            # RLlib sums returns over agents; ours is the mean, F where every agent is paid F.
            metrics["episode/return"] = float(mean) / len(self.team.agents)
        length = runners.get("episode_len_mean")
        if length is not None and np.isfinite(length):
            metrics["episode/length"] = float(length)
        for module, values in result.get(_LEARNERS, {}).items():
            if module not in self.team.agents:
                continue
            for name, value in values.items():
                if isinstance(value, int | float | np.number) and np.isfinite(value):
                    metrics[f"{name}/{module}"] = float(value)
        return metrics

    def policy(self) -> StockPolicy:
        """Return the current greedy policy."""
        return StockPolicy(self.algorithm, self.team)

    def actors(self) -> dict[str, Any]:
        """Return nothing: stock modules are no actors of ours, and are saved with the state."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return networks and optimisers of the learner, and the counts of steps."""
        state = self.algorithm.learner_group.get_state()["learner"]
        kept = {key: state[key] for key in ("rl_module", "optimizer")}
        return {"learner": kept, "seen": dict(self._seen)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with saved networks; environments start anew, so the run is not repeated."""
        group = self.algorithm.learner_group
        group.set_state({"learner": dict(state["learner"])})
        self.algorithm.env_runner_group.sync_weights(
            from_worker_or_learner_group=group, inference_only=True
        )
        # RLlib's lifetime counts begin again in a new algorithm.
        self._seen = {"env": 0.0, "agent": 0.0}

    def load_networks(self, state: Mapping[str, Any]) -> None:
        """Take over saved networks, with their optimisers."""
        self.load_state_dict(state)

    def close(self) -> None:
        """Stop the algorithm, and Ray if it was started here."""
        self.algorithm.stop()
        self._stop_ray()
