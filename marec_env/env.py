"""Views of the simulator: PettingZoo parallel and sequential environments, and batched arrays.

The PettingZoo views give numpy arrays, so they run without autograd's bookkeeping, which saves a
sixth of a step. The simulator behind such a view must not be stepped by itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import AECEnv, ParallelEnv
from pydantic import ConfigDict
from torch import Tensor

from marec_env.config import ConfigModel
from marec_env.config.loader import load, load_mapping
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError, unknown_name
from marec_env.rendering import funnel_image, funnel_text
from marec_env.simulator import Simulator
from marec_env.vector import Action, VecStep
from marec_env.world import build_world

__all__ = ["PipelineAECEnv", "PipelineParallelEnv", "aec_env", "make_vec", "parallel_env"]

Config = EnvironmentConfig | Mapping[str, Any] | str | Path | None
"""A configuration, a mapping of its keys, a YAML file holding it, or ``None`` for the defaults."""

_Space = spaces.Space[Any]
_VERSION = "pipeline_v0"
_RENDER_MODES = ("ansi", "rgb_array")
_SECTIONS_OF_A_RUN = re.compile(
    r"^(environment|algorithm|sampling|training|evaluation|tracking)\s*:", re.MULTILINE
)


class _RunFile(ConfigModel):
    """A file that configures a run, of which an environment reads its own section."""

    model_config = ConfigDict(extra="ignore")
    environment: EnvironmentConfig = EnvironmentConfig()


def resolve(config: Config, **overrides: Any) -> EnvironmentConfig:
    """Return the configuration that is meant.

    Args:
        config: see :data:`Config`; of a run's file, the section ``environment`` counts.
        overrides: keys of the section and their values; ``None`` for no change.

    Raises:
        ConfigError: it is none of these, or holds errors; one line each.
    """
    if isinstance(config, str | Path):
        path = Path(config)
        # os.path: pathlib raises where a name is too long to be a file's.
        of_a_run = os.path.isfile(path) and _SECTIONS_OF_A_RUN.search(
            path.read_text(errors="replace")
        )
        config = load(path, _RunFile).environment if of_a_run else load(path, EnvironmentConfig)
    elif config is None:
        config = EnvironmentConfig()
    elif isinstance(config, Mapping):
        config = load_mapping(config, EnvironmentConfig, "environment")
    elif not isinstance(config, EnvironmentConfig):
        raise ConfigError(
            f"an environment is configured by a mapping of its keys, a YAML file's path or an "
            f"EnvironmentConfig, not by {config!r}"
        )
    changes = {key: value for key, value in overrides.items() if value is not None}
    if not changes:
        return config
    return load_mapping({**config.model_dump(), **changes}, EnvironmentConfig, "environment")


def make_vec(config: Config = None, num_sessions: int = 64, device: str | None = None) -> Simulator:
    """Return ``num_sessions`` sessions as one batched environment with autoreset::

        env = marec_env.make_vec({"max_requests": 20}, num_sessions=8)
        step = env.reset(seed=0)
        step = env.step(env.default_actions())   # or {agent: batch of actions}
        step.rewards["ranking_0"], step.terminated   # [8] each

    Args:
        config: see :data:`Config`.
        num_sessions: B.
        device: overrides ``config.device``.

    Raises:
        ConfigError: an unsound configuration, or sessions that do not fit into memory.
    """
    return Simulator(build_world(resolve(config, device=device)), num_sessions)


def _one(value: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = value.cpu().numpy()[0].astype(np.float32)
    return array


def _numbers(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the one session's value of each float32 ``[1]`` tensor."""
    return dict(zip(values, torch.cat(list(values.values())).tolist(), strict=True))


def _batched(agent: str, action: Any, device: torch.device) -> Action:
    """Turn one session's action into a batch of one; the simulator checks it.

    Raises:
        ConfigError: it is not made of numbers.
    """
    if isinstance(action, tuple):
        parts = [_batched(agent, part, device) for part in action]
        return tuple(part for part in parts if isinstance(part, Tensor))
    try:
        return torch.from_numpy(np.array(action)[None]).to(device)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{agent}: action {action!r} is not made of numbers") from error


class _SessionView:
    """What both PettingZoo views share: one session, its spaces, its episodes and its pictures."""

    _sequential = False

    def __init__(self, config: Config = None, render_mode: str | None = None) -> None:
        """Args:
        config: see :data:`Config`; the view says whether the pipeline is sequential.
        render_mode: ``ansi``, ``rgb_array`` or ``None``.
        """
        super().__init__()
        if render_mode not in (None, *_RENDER_MODES):
            raise ConfigError(f"render_mode '{render_mode}' is unknown (known: ansi, rgb_array)")
        resolved = resolve(config)
        pipeline = resolved.pipeline.model_copy(update={"sequential": self._sequential})
        self.config = resolved.model_copy(update={"pipeline": pipeline})
        self.metadata: dict[str, Any] = {
            "name": _VERSION,
            "render_modes": list(_RENDER_MODES),
            "is_parallelizable": not self._sequential,
        }
        self.render_mode = render_mode
        self.simulator = Simulator(build_world(self.config), 1, autoreset=False)
        self.possible_agents = list(self.simulator.agents)
        self.agents: list[str] = []
        self.observation_spaces: dict[str, _Space] = {**self.simulator.observation_spaces}
        self.action_spaces: dict[str, _Space] = {**self.simulator.action_spaces}
        self.state_space = self.simulator.state_space
        self._seed = 0
        self._episode = -1

    def _begin(self, seed: int | None) -> VecStep:
        """Begin the next episode; a seed starts its own sequence of episodes."""
        if seed is None:
            seed, episode = self._seed, self._episode + 1
        else:
            episode = 0
        step = self.simulator.begin(torch.tensor([episode]), seed)
        self._seed, self._episode = seed, episode
        self.agents = list(self.possible_agents)
        return step

    def observation_space(self, agent: str) -> _Space:
        """Return an agent's observation space."""
        return self.observation_spaces[self._known(agent)]

    def action_space(self, agent: str) -> _Space:
        """Return an agent's action space."""
        return self.action_spaces[self._known(agent)]

    def _known(self, agent: str) -> str:
        if agent not in self.action_spaces:
            what = "agent" if agent else "no episode is running, call reset() first: agent"
            raise ConfigError(unknown_name(what, agent, self.possible_agents))
        return agent

    @torch.inference_mode()
    def state(self) -> NDArray[np.float32]:
        """Return the central critic's input."""
        return _one(self.simulator.state())

    def render(self) -> Any:
        """Return the latest request's way through the funnel, as text or as an image."""
        if self.render_mode is None:
            return None
        world, last = self.simulator.world, self.simulator.last
        return funnel_text(world, last) if self.render_mode == "ansi" else funnel_image(world, last)

    def close(self) -> None:
        """Release nothing: all is memory."""


class PipelineParallelEnv(_SessionView, ParallelEnv[str, NDArray[np.float32], Any]):
    """One session; all components act at once on what the last request left (PettingZoo).

    ``reset(seed)`` fixes the user and all luck; without a seed the next episode of the present
    sequence begins, so no two episodes are the same and every run can be repeated.
    """

    def __init__(
        self, config: Config = None, render_mode: str | None = None, *, compiled: bool = False
    ) -> None:
        """Args:
        config: see :data:`Config`.
        render_mode: ``ansi``, ``rgb_array`` or ``None``.
        compiled: whether a step is one compiled program, several times as fast: takes a minute
            once on a machine and a C++ compiler; what cannot be compiled runs as it is.
        """
        super().__init__(config, render_mode)
        if compiled:
            with torch.no_grad():
                self.simulator.compile()

    @torch.inference_mode()
    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, dict[str, Any]]]:
        """Begin an episode; see the class."""
        step = self._begin(seed)
        observations = {agent: _one(step.observations[agent]) for agent in self.agents}
        return observations, {agent: {} for agent in self.agents}

    @torch.inference_mode()
    def step(
        self, actions: dict[str, Any]
    ) -> tuple[
        dict[str, NDArray[np.float32]],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, dict[str, Any]],
    ]:
        """Answer one request.

        Raises:
            ConfigError: the episode has ended, an agent's action is missing or does not fit.
        """
        if not self.agents:
            raise ConfigError("no episode is running; call reset() before step()")
        if not isinstance(actions, Mapping):
            raise ConfigError(f"actions are {actions!r}; give a mapping from agent to action")
        missing = [agent for agent in self.agents if agent not in actions]
        if missing:
            raise ConfigError(f"no action for {', '.join(missing)}; all agents act at once")
        simulator = self.simulator
        batch = {agent: _batched(agent, actions[agent], simulator.device) for agent in self.agents}
        step = simulator.step(batch)
        agents = self.agents
        ended, cut = bool(step.terminated[0]), bool(step.truncated[0])
        infos, rewards = _numbers(step.metrics), _numbers(step.rewards)
        if ended or cut:
            self.agents = []
        return (
            {agent: _one(step.final_observations[agent]) for agent in agents},
            rewards,
            dict.fromkeys(agents, ended),
            dict.fromkeys(agents, cut),
            {agent: dict(infos) for agent in agents},
        )


class PipelineAECEnv(_SessionView, AECEnv[str, NDArray[np.float32], Any]):
    """One session; components act in pipeline order, each seeing what those before it did."""

    _sequential = True
    agent_selection = ""

    @torch.inference_mode()
    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Begin an episode; seeds as in :class:`PipelineParallelEnv`."""
        self._begin(seed)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos: dict[str, dict[str, Any]] = {agent: {} for agent in self.agents}
        self.agent_selection = self.agents[0]

    @torch.inference_mode()
    def observe(self, agent: str) -> NDArray[np.float32]:
        """Return an agent's present observation."""
        return _one(self.simulator.observe(self._known(agent)))

    @torch.inference_mode()
    def step(self, action: Any) -> None:
        """Take the selected agent's action; after the last agent's, the users answer.

        Raises:
            ConfigError: no episode is running, or the action does not fit.
        """
        if not self.agents:
            raise ConfigError("no episode is running; call reset() before step()")
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        self.simulator.act({agent: _batched(agent, action, self.simulator.device)})
        self._cumulative_rewards[agent] = 0.0
        self._clear_rewards()
        place = self.agents.index(agent)
        if place + 1 < len(self.agents):
            self.agent_selection = self.agents[place + 1]
        else:
            self._answer()
            self.agent_selection = self.agents[0]
        self._accumulate_rewards()

    def _answer(self) -> None:
        step = self.simulator.advance()
        infos = _numbers(step.metrics)
        self.rewards = _numbers(step.rewards)
        ended, cut = bool(step.terminated[0]), bool(step.truncated[0])
        for agent in self.agents:
            self.terminations[agent], self.truncations[agent] = ended, cut
            self.infos[agent] = dict(infos)


parallel_env, aec_env = PipelineParallelEnv, PipelineAECEnv
