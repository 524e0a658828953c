"""Gymnasium's ``VectorEnv`` of one component, or of several as one agent, over batched sessions.

>>> import marec_env
>>> from marec_env.adapters.gym import TeamVectorEnv
>>> envs = TeamVectorEnv(marec_env.make_vec(num_sessions=64), "ranking_0")  # doctest: +SKIP
>>> observations, infos = envs.reset(seed=0)  # doctest: +SKIP
>>> observations, rewards, terminated, truncated, infos = envs.step(  # doctest: +SKIP
...     envs.action_space.sample()
... )
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from marec_env import random
from marec_env.errors import ConfigError, unknown_name
from marec_env.evaluation.policies import DrawingPolicy, TeamPolicy
from marec_env.pipeline.actions import ActionCode
from marec_env.pipeline.config import ActionKind
from marec_env.simulator import Simulator
from marec_env.vector import Action, map_parts

__all__ = ["LearnedPolicy", "TeamVectorEnv"]

_Array = NDArray[Any]
Act = Callable[[_Array], _Array]
"""Actions for observations, ``[B, d]`` each."""


class LearnedPolicy:
    """A team in which some components play what was learned elsewhere, the others as given."""

    def __init__(
        self, agents: Sequence[str], code: ActionCode, act: Act, others: TeamPolicy
    ) -> None:
        """Args:
        agents: those that ``act`` decides for.
        code: of their actions.
        act: from their observations, one after another, to numbers of ``code.space``.
        others: decides for the rest.
        """
        self._agents, self._code, self._act, self._others = tuple(agents), code, act, others

    def reset(self) -> None:
        """Begin new episodes everywhere."""
        self._others.reset()

    def begin(self, sessions: Tensor) -> None:
        """Begin the episodes of the sessions with these keys."""
        if isinstance(self._others, DrawingPolicy):
            self._others.begin(sessions)

    def act(self, observations: Mapping[str, Tensor]) -> dict[str, Action]:
        """Return the actions of one turn's agents."""
        rest = {agent: seen for agent, seen in observations.items() if agent not in self._agents}
        actions = self._others.act(rest) if rest else {}
        if self._agents[0] in observations:
            seen = torch.cat([observations[agent] for agent in self._agents], dim=1)
            codes = torch.as_tensor(self._act(seen.cpu().numpy()), device=seen.device)
            actions |= self._code.decode(codes.reshape(len(seen), -1))
        return actions


class _HandSet:
    """Every component plays its default."""

    def __init__(self, defaults: Mapping[str, Action]) -> None:
        self._defaults = defaults

    def reset(self) -> None:
        """Nothing to forget."""

    def act(self, observations: Mapping[str, Tensor]) -> dict[str, Action]:
        """Return the default of each agent of the turn."""
        count = len(next(iter(observations.values())))
        return {
            agent: map_parts(
                lambda part: part[:1].expand(count, *part.shape[1:]), self._defaults[agent]
            )
            for agent in observations
        }


class TeamVectorEnv(VectorEnv[_Array, _Array, _Array]):
    """Batched sessions in which one agent decides for some components, and given ones for the rest.

    It observes what these components observe, one after another, and earns the mean of what they
    earn (under the default team reward all earn F). A session that ended begins anew in the same
    step; ``infos`` then holds ``final_obs`` and ``episode`` (``r``, ``l``), where ``_final_obs``
    and ``_episode`` say so, and each metric of the request by name, all as arrays over sessions.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self,
        simulator: Simulator,
        agents: str | Sequence[str] | None = None,
        *,
        others: TeamPolicy | None = None,
        actions: ActionKind = "mixed",
    ) -> None:
        """Args:
        simulator: from :func:`marec_env.make_vec`; it must not be stepped by itself.
        agents: one component or several; all if ``None``.
        others: plays the rest; their hand-set defaults if ``None``. Its memory, if it has one, is
            cleared when all sessions begin, not at a session's end.
        actions: of which kind; see :class:`marec_env.pipeline.actions.ActionCode`.

        Raises:
            ConfigError: an unknown component, several in a sequential pipeline, or actions that do
                not fit into one space.
        """
        chosen = simulator.agents if agents is None else agents
        self.agents = (chosen,) if isinstance(chosen, str) else tuple(chosen)
        for agent in self.agents:
            if agent not in simulator.agents:
                raise ConfigError(unknown_name("agent", agent, simulator.agents))
        if len(self.agents) > 1 and len(simulator.turns) > 1:
            raise ConfigError(
                "components that act one after another are no single agent; set"
                " pipeline.sequential: false, or name one of them"
            )
        self.simulator, self.num_envs = simulator, simulator.num_envs
        mine = {agent: simulator.action_spaces[agent] for agent in self.agents}
        self.code = ActionCode(mine, actions, simulator.device)
        size = sum(simulator.observation_spaces[agent].shape[0] for agent in self.agents)
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.single_action_space = self.code.space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._others = _HandSet(simulator.default_actions()) if others is None else others
        self._team = LearnedPolicy(self.agents, self.code, lambda _: self._taken, self._others)
        turns = simulator.turns
        first = next(place for place, turn in enumerate(turns) if self.agents[0] in turn)
        self._before, self._after = turns[:first], turns[first:]
        self._taken: _Array = np.zeros(0)
        self._return, self._length = np.zeros(self.num_envs), np.zeros(self.num_envs, np.int64)

    def policy(self, act: Act) -> LearnedPolicy:
        """Return a team for evaluation in which ``act`` decides as it does here.

        Args:
            act: from observations ``[B, d]`` to numbers of ``single_action_space``, ``[B, ...]``,
                for any ``B``: ``lambda seen: model.predict(seen, deterministic=True)[0]``.
        """
        return LearnedPolicy(self.agents, self.code, act, self._others)

    @torch.inference_mode()
    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[_Array, dict[str, Any]]:
        """Begin episode 0 of a seed in all sessions; without a seed, of one drawn from the last.

        Raises:
            ConfigError: a list of seeds; sessions differ by their place.
        """
        del options
        if isinstance(seed, list):
            raise ConfigError("seed is a list; allowed: one number, sessions differ by their place")
        super().reset(seed=seed)
        self.simulator.reset(
            int(self.np_random.integers(1 << 31)) if seed is None else random.whole_seed(seed)
        )
        self._team.reset()
        self._team.begin(self.simulator.session_keys)
        self._return[:], self._length[:] = 0.0, 0
        return self._observation(), {}

    def _play(self, turns: Sequence[Sequence[str]]) -> None:
        for turn in turns:
            seen = {agent: self.simulator.observe(agent) for agent in turn}
            self.simulator.act(self._team.act(seen))

    def _observation(self) -> _Array:
        """Let those act who come before, and return what is observed then."""
        self._play(self._before)
        return self._joined({agent: self.simulator.observe(agent) for agent in self.agents})

    def _joined(self, observations: Mapping[str, Tensor]) -> _Array:
        found: _Array = torch.cat([observations[a] for a in self.agents], dim=1).cpu().numpy()
        return found

    @torch.inference_mode()
    def step(self, actions: _Array) -> tuple[_Array, _Array, _Array, _Array, dict[str, Any]]:
        """Answer one request of every session.

        Raises:
            ConfigError: the actions do not fit.
        """
        self._taken = np.asarray(actions)
        if self._taken.shape != self.action_space.shape:
            raise ConfigError(
                f"actions have shape {self._taken.shape}; needed: {self.action_space.shape}"
            )
        self._play(self._after)
        step = self.simulator.advance()
        rewards = torch.stack([step.rewards[agent] for agent in self.agents]).mean(dim=0)
        found = torch.stack([rewards, step.terminated, step.truncated, *step.metrics.values()])
        reward, *flags = found.cpu().numpy()
        terminated, truncated = (flag.astype(bool) for flag in flags[:2])
        infos: dict[str, Any] = dict(zip(step.metrics, flags[2:], strict=True))
        ended = terminated | truncated
        self._return += reward
        self._length += 1
        if ended.any():
            infos["final_obs"], infos["_final_obs"] = self._joined(step.final_observations), ended
            infos["episode"] = {"r": self._return.copy(), "l": self._length.copy()}
            infos["_episode"] = ended
            self._return[ended], self._length[ended] = 0.0, 0
        return self._observation(), reward.astype(np.float64), terminated, truncated, infos
