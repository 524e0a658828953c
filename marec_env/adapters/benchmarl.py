"""A BenchMARL task of the pipeline, for its algorithms as they are.

>>> from benchmarl.algorithms import MappoConfig
>>> from benchmarl.experiment import Experiment, ExperimentConfig
>>> from benchmarl.models import MlpConfig
>>> from marec_env.adapters.benchmarl import PipelineTask
>>> experiment = Experiment(  # doctest: +SKIP
...     task=PipelineTask("configs/quick.yaml"),
...     algorithm_config=MappoConfig.get_from_yaml(),
...     model_config=MlpConfig.get_from_yaml(),
...     critic_model_config=MlpConfig.get_from_yaml(),
...     config=ExperimentConfig.get_from_yaml(),
...     seed=0,
... )
>>> experiment.run()  # doctest: +SKIP
>>> team = experiment.task.policy(experiment)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torchrl.data import Composite
from torchrl.envs import EnvBase, RewardSum, Transform

import marec_env
from marec_env.adapters.torchrl import ModulePolicy, SessionsEnv
from marec_env.env import Config, resolve
from marec_env.environment_config import EnvironmentConfig
from marec_env.pipeline.config import ActionKind


class PipelineTask:
    """What ``benchmarl.environments.TaskClass`` says of a task, all of which BenchMARL asks for by
    name: no subclass, so that this module can be imported beside any torchrl.

    Every component is a group (see :class:`marec_env.adapters.torchrl.SessionsEnv`).

    With continuous actions a component is one agent that decides numbers in [-1, 1]; with discrete
    ones each of its choices is an agent of its group, as BenchMARL knows one choice an agent, so
    that QMIX and VDN mix a component's choices and components learn beside each other.
    """

    def __init__(self, config: Config = None, name: str = "PIPELINE") -> None:
        """``config``: of the environment, see :data:`marec_env.env.Config`; ``name``: in logs."""
        self.name = name
        self.config = resolve(config).model_dump(mode="json")

    def get_env_fun(
        self, num_envs: int, continuous_actions: bool, seed: int | None, device: Any
    ) -> Callable[[], EnvBase]:
        """Return what makes a batch of sessions."""

        def make() -> EnvBase:
            env = self._view(num_envs, continuous_actions, str(device))
            env.set_seed(seed)
            return env

        return make

    def _view(self, sessions: int, continuous: bool, device: str | None = None) -> SessionsEnv:
        simulator = marec_env.make_vec(self.config, sessions, device)
        kind: ActionKind = "box" if continuous else "discrete"
        return SessionsEnv(simulator, actions=kind, split=not continuous)

    def policy(self, experiment: Any) -> ModulePolicy:
        """Return the team that an experiment has learned, for evaluation."""
        view = self._view(1, experiment.continuous_actions)
        return view.policy(experiment.policy)

    def supports_continuous_actions(self) -> bool:
        """Yes."""
        return True

    def supports_discrete_actions(self) -> bool:
        """Yes."""
        return True

    def max_steps(self, env: EnvBase) -> int:
        """Return the requests after which an episode is cut off."""
        config: EnvironmentConfig = resolve(self.config)
        return config.max_requests

    def has_render(self, env: EnvBase) -> bool:
        """No."""
        return False

    def group_map(self, env: EnvBase) -> dict[str, list[str]]:
        """Return each component's agents."""
        found: dict[str, list[str]] = env.group_map
        return found

    def observation_spec(self, env: EnvBase) -> Composite:
        """Return each group's observation."""
        spec = env.observation_spec_unbatched.clone()
        del spec["state"]
        for group in self.group_map(env):
            for key in set(spec[group].keys()) - {"observation"}:
                del spec[group][key]
        return spec

    def info_spec(self, env: EnvBase) -> None:
        """Nothing more is told."""

    def state_spec(self, env: EnvBase) -> Composite:
        """Return the central critic's input."""
        return Composite({"state": env.observation_spec_unbatched["state"].clone()})

    def action_spec(self, env: EnvBase) -> Composite:
        """Return each group's actions."""
        return env.full_action_spec_unbatched

    def action_mask_spec(self, env: EnvBase) -> None:
        """Everything is always allowed."""

    def get_reward_sum_transform(self, env: EnvBase) -> Transform:
        """Return what adds up each group's rewards to those of an episode."""
        return RewardSum(reset_keys=["_reset"] * len(self.group_map(env)))

    def get_env_transforms(self, env: EnvBase) -> list[Transform]:
        """Return none."""
        return []

    def get_replay_buffer_transforms(self, env: EnvBase, group: str) -> list[Transform]:
        """Return none."""
        return []

    @staticmethod
    def log_info(batch: Any) -> dict[str, float]:
        """Nothing more is logged."""
        return {}

    @staticmethod
    def env_name() -> str:
        """Return what folders and logs call it."""
        return "marec"
