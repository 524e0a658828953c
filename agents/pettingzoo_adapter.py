"""Any PettingZoo parallel environment as a vector environment.

RLlib's own wrapper never ends an episode in which some agents terminate and others truncate, resets
unseeded, and has no ``state()``; this adapter keeps each agent's own end, seeds every episode from
(run seed, environment, episode), and gives the critic ``state()`` or the concatenated observations.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv
from pydantic import Field
from torch import Tensor

from marec_env import random
from marec_env.config.base import ConfigModel
from marec_env.errors import ConfigError, PluginError
from marec_env.registry import load_object, naming
from marec_env.vector import Action, VecStep

__all__ = ["AgentVecStep", "PettingZooConfig", "PettingZooVectorEnv", "make_pettingzoo"]

_STREAM = "pettingzoo/episode"
_MASK = "action_mask"
_SEED_LIMIT = 1 << 31  # gymnasium's and numpy's seeds are non-negative and fit 32 bits


class PettingZooConfig(ConfigModel):
    """A PettingZoo parallel environment that was written elsewhere."""

    kind: Literal["pettingzoo"] = "pettingzoo"
    entry_point: str = Field(
        pattern=r"^[\w.]+:[\w.]+$",
        description="Place of a function that returns a ParallelEnv: 'package.module:function',"
        " for example 'mpe2.simple_spread_v3:parallel_env'.",
    )
    kwargs: dict[str, Any] = Field(default={}, description="Arguments of the function.")
    num_envs: int = Field(default=8, ge=1, description="Copies stepped one after another.")
    state: Literal["own", "observations"] = Field(
        default="own",
        description="What a central critic sees: the environment's state() where it has one, or"
        " all observations one after another, which may cost less to make.",
    )


@dataclass(slots=True)
class AgentVecStep(VecStep):
    """A step in which an agent may end before its team does."""

    agent_terminated: dict[str, Tensor] = field(default_factory=dict)
    """Per agent, bool ``[B]``: it ended by itself in this step."""
    agent_truncated: dict[str, Tensor] = field(default_factory=dict)
    """Per agent, bool ``[B]``: it was cut off in this step."""


class PettingZooVectorEnv:
    """``num_envs`` copies of a parallel environment, stepped in one process.

    Observations are flattened. An observation that is a Dict with ``observation`` and
    ``action_mask`` gives its mask apart. An agent that has ended observes zeros, earns nothing and
    is inactive until its team's episode ends. The team is truncated if any agent was truncated when
    its last one ended, and terminated otherwise.

    :meth:`state_dict` holds the seed and the actions of the current episodes, and
    :meth:`load_state_dict` plays them again: exact for any environment that is a function of both.
    """

    def __init__(
        self,
        make: Callable[[], ParallelEnv[Any, Any, Any]],
        num_envs: int,
        state: Literal["own", "observations"] = "own",
    ) -> None:
        """Args:
        make: returns a new environment.
        num_envs: copies.
        state: see :class:`PettingZooConfig`.

        Raises:
            ConfigError: a space cannot be used.
        """
        self.num_envs = num_envs
        self._envs = [make() for _ in range(num_envs)]
        first = self._envs[0]
        self.agents = tuple(str(agent) for agent in first.possible_agents)
        self._raw = dict(zip(self.agents, first.possible_agents, strict=True))
        self.turns: tuple[tuple[str, ...], ...] = (self.agents,)
        raw_spaces = {a: first.observation_space(self._raw[a]) for a in self.agents}
        self._masked = {
            a: isinstance(s, spaces.Dict) and _MASK in s.spaces for a, s in raw_spaces.items()
        }
        self._inner = {a: _without_mask(s) if self._masked[a] else s for a, s in raw_spaces.items()}
        self._plain = {
            a: isinstance(s, spaces.Box) and len(s.shape) == 1 for a, s in self._inner.items()
        }
        self.observation_spaces: dict[str, spaces.Box] = {
            a: _flat_box(a, s) for a, s in self._inner.items()
        }
        self.action_spaces: dict[str, spaces.Space[Any]] = {
            a: first.action_space(self._raw[a]) for a in self.agents
        }
        self._sizes = {a: int(s.shape[0]) for a, s in self.observation_spaces.items()}
        self._own_state = state == "own" and _has_state(first)
        size = sum(self._sizes.values())
        if self._own_state:
            shape = getattr(first, "state_space", None)
            size = int(np.prod(shape.shape)) if shape is not None else self._measure_state(first)
        self.state_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self._seed = 0
        self._episode = np.zeros(num_envs, np.int64)
        self._history: list[list[dict[str, Any]]] = [[] for _ in range(num_envs)]
        self._returns = np.zeros((num_envs, len(self.agents)))
        self._lengths = np.zeros(num_envs, np.int64)
        self._cut = np.zeros(num_envs, bool)
        self._pending: dict[str, Action] = {}
        self._buffers()

    @staticmethod
    def _measure_state(env: ParallelEnv[Any, Any, Any]) -> int:
        env.reset(seed=0)
        return int(np.asarray(env.state()).size)

    def _buffers(self) -> None:
        """Allocate what the next step's results are written into."""
        B = self.num_envs
        self._observations = {a: np.zeros((B, n), np.float32) for a, n in self._sizes.items()}
        self._state = np.zeros((B, self.state_space.shape[0]), np.float32)
        self._active = {a: np.ones(B, bool) for a in self.agents}
        self._masks = {
            a: np.ones((B, _mask_width(self.action_spaces[a])), bool)
            for a in self.agents
            if self._masked[a]
        }

    def _episode_seed(self, index: int) -> int:
        key = random.session_keys(self._seed, torch.tensor([index]))
        return int(random.integers(key, int(self._episode[index]), _STREAM, 1, _SEED_LIMIT))

    def _reset_one(self, index: int) -> None:
        observations, _ = self._envs[index].reset(seed=self._episode_seed(index))
        self._history[index] = []
        self._returns[index] = 0.0
        self._lengths[index] = 0
        self._cut[index] = False
        for agent in self.agents:
            self._active[agent][index] = self._raw[agent] in observations
        self._write(index, observations)

    def _write(self, index: int, observations: Mapping[Any, Any]) -> None:
        """Write one environment's observations, masks and state into the buffers."""
        for agent, raw in self._raw.items():
            row = self._observations[agent][index]
            value = observations.get(raw)
            if value is None:
                row[:] = 0.0
                continue
            if self._masked[agent]:
                mask = value[_MASK]
                parts = mask if isinstance(mask, tuple) else (mask,)
                self._masks[agent][index] = np.concatenate([np.asarray(p) for p in parts]) > 0
                value = value["observation"]
            row[:] = value if self._plain[agent] else spaces.flatten(self._inner[agent], value)
        if self._own_state:
            self._state[index] = np.asarray(self._envs[index].state(), np.float32).reshape(-1)
        else:
            np.concatenate(
                [self._observations[a][index] for a in self.agents], out=self._state[index]
            )

    def reset(self, seed: int) -> VecStep:
        """Start new episodes everywhere."""
        self._seed = seed
        self._episode[:] = 0
        for index in range(self.num_envs):
            self._reset_one(index)
        return self._start()

    def _start(self) -> VecStep:
        nobody = np.zeros(self.num_envs, bool)
        zeros = {a: np.zeros(self.num_envs, np.float32) for a in self.agents}
        own = dict.fromkeys(self.agents, nobody)
        final = {a: o.copy() for a, o in self._observations.items()}
        return self._result(zeros, nobody, nobody, final, self._state.copy(), own, own, [])

    def _result(
        self,
        rewards: Mapping[str, NDArray[Any]],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
        final: Mapping[str, NDArray[np.float32]],
        final_state: NDArray[np.float32],
        own_terminated: Mapping[str, NDArray[np.bool_]],
        own_truncated: Mapping[str, NDArray[np.bool_]],
        ended: Sequence[tuple[float, int]],
    ) -> VecStep:
        torches = {a: torch.from_numpy(r.astype(np.float32)) for a, r in rewards.items()}
        return AgentVecStep(
            observations={a: torch.from_numpy(o.copy()) for a, o in self._observations.items()},
            state=torch.from_numpy(self._state.copy()),
            rewards=torches,
            terminated=torch.from_numpy(terminated.copy()),
            truncated=torch.from_numpy(truncated.copy()),
            final_state=torch.from_numpy(final_state),
            final_observations={a: torch.from_numpy(o) for a, o in final.items()},
            active={a: torch.from_numpy(x.copy()) for a, x in self._active.items()},
            action_masks={
                a: _split_mask(torch.from_numpy(m.copy()), self.action_spaces[a])
                for a, m in self._masks.items()
            },
            metrics={"team_reward": torch.stack(list(torches.values())).mean(dim=0)},
            episodes={
                "return": torch.tensor([r for r, _ in ended], dtype=torch.float32),
                "length": torch.tensor([n for _, n in ended], dtype=torch.float32),
            },
            agent_terminated={a: torch.from_numpy(x.copy()) for a, x in own_terminated.items()},
            agent_truncated={a: torch.from_numpy(x.copy()) for a, x in own_truncated.items()},
        )

    def observe(self, agent: str) -> Tensor:
        """Return an agent's current observation, ``[B, d_i]``."""
        return torch.from_numpy(self._observations[agent].copy())

    def act(self, actions: Mapping[str, Action]) -> None:
        """Take all agents' actions."""
        self._pending = dict(actions)

    def advance(self) -> VecStep:
        """Step every copy; start new episodes where they ended."""
        B = self.num_envs
        columns = {a: _numpy(self._pending[a]) for a in self.agents}
        rewards = {a: np.zeros(B, np.float64) for a in self.agents}
        terminated, truncated = np.zeros(B, bool), np.zeros(B, bool)
        own_terminated = {a: np.zeros(B, bool) for a in self.agents}
        own_truncated = {a: np.zeros(B, bool) for a in self.agents}
        over: list[int] = []
        for index, env in enumerate(self._envs):
            actions = {
                self._raw[a]: _row(columns[a], index, self.action_spaces[a])
                for a in self.agents
                if self._active[a][index]
            }
            self._history[index].append(actions)
            self._play(index, actions, rewards, own_terminated, own_truncated)
            if not any(self._active[a][index] for a in self.agents) or not env.agents:
                over.append(index)
                truncated[index] = self._cut[index]
                terminated[index] = not self._cut[index]
        for number, agent in enumerate(self.agents):
            self._returns[:, number] += rewards[agent]
        self._lengths += 1
        final = {a: o.copy() for a, o in self._observations.items()}
        final_state = self._state.copy()
        ended = [(float(self._returns[i].mean()), int(self._lengths[i])) for i in over]
        for index in over:
            self._episode[index] += 1
            self._reset_one(index)
        return self._result(
            rewards, terminated, truncated, final, final_state, own_terminated, own_truncated, ended
        )

    def _play(
        self,
        index: int,
        actions: Mapping[Any, Any],
        rewards: Mapping[str, NDArray[np.float64]],
        own_terminated: Mapping[str, NDArray[np.bool_]],
        own_truncated: Mapping[str, NDArray[np.bool_]],
    ) -> None:
        """Step one copy, writing its results into row ``index``."""
        observations, paid, terms, truncs, _ = self._envs[index].step(dict(actions))
        for agent, raw in self._raw.items():
            if not self._active[agent][index]:
                continue
            rewards[agent][index] = paid.get(raw, 0.0)
            term, trunc = bool(terms.get(raw, False)), bool(truncs.get(raw, False))
            own_terminated[agent][index] = term
            own_truncated[agent][index] = trunc and not term
            self._active[agent][index] = not (term or trunc)
            self._cut[index] |= trunc and not term
        self._write(index, observations)

    def step(self, actions: Mapping[str, Action]) -> VecStep:
        """Act, then advance."""
        self.act(actions)
        return self.advance()

    def state_dict(self) -> dict[str, Any]:
        """Return the seed, and per copy the episode's number and the actions taken in it."""
        return {
            "seed": self._seed,
            "episode": self._episode.tolist(),
            "history": [
                [{str(raw): value for raw, value in step.items()} for step in steps]
                for steps in self._history
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Start the saved episodes again and play the saved actions."""
        self._seed = int(state["seed"])
        self._episode[:] = state["episode"]
        scratch = {a: np.zeros(self.num_envs, np.float64) for a in self.agents}
        flags = {a: np.zeros(self.num_envs, bool) for a in self.agents}
        for index, steps in enumerate(state["history"]):
            self._reset_one(index)
            for actions in steps:
                played = {self._raw[agent]: action for agent, action in actions.items()}
                self._history[index].append(played)
                self._play(index, played, scratch, flags, flags)
                for number, agent in enumerate(self.agents):
                    if self._raw[agent] in played:
                        self._returns[index, number] += scratch[agent][index]
                self._lengths[index] += 1

    def close(self) -> None:
        """Close every copy."""
        for env in self._envs:
            env.close()  # type: ignore[no-untyped-call]


def make_pettingzoo(config: PettingZooConfig, num_envs: int | None = None) -> PettingZooVectorEnv:
    """Return the vector environment of a configuration.

    Args:
        config: entry point, its arguments, copies.
        num_envs: overrides ``config.num_envs``.

    Raises:
        ConfigError: the entry point cannot be imported or called so, or does not give a parallel
            environment.
    """
    function: Any = load_object(config.entry_point)
    if not makes_environments(function):
        raise ConfigError(
            f"'{config.entry_point}' is no PettingZoo environment: name a class of one, or a "
            "function of a module that uses pettingzoo; nothing was called"
        )
    try:
        inspect.signature(function).bind(**config.kwargs)
    except TypeError as error:
        raise ConfigError(f"kwargs of '{config.entry_point}': {error}") from error
    except ValueError:  # no signature to look at: the call itself will tell
        pass
    try:
        with naming(f"environment '{config.entry_point}'"):
            env = function(**config.kwargs)
    except PluginError as error:
        if isinstance(error.__cause__, TypeError):  # a wrong name that the function passed on
            raise ConfigError(f"kwargs of '{config.entry_point}': {error.__cause__}") from error
        raise
    if not hasattr(env, "possible_agents") or hasattr(env, "agent_iter"):
        raise ConfigError(
            f"'{config.entry_point}' gives {type(env).__name__}, not a PettingZoo ParallelEnv"
            " (an AEC environment's module has a parallel_env function for it)"
        )
    return PettingZooVectorEnv(
        partial(function, **config.kwargs), num_envs or config.num_envs, config.state
    )


def makes_environments(found: Any) -> bool:
    """Return whether an object looks like what makes PettingZoo environments; nothing is called.

    A class is asked for the methods of one, a function for traces of pettingzoo: where it is
    defined, and what it or its module uses.
    """
    if isinstance(found, type):
        return all(hasattr(found, name) for name in ("reset", "step", "observation_space"))
    if isinstance(found, partial):
        return makes_environments(found.func)
    code, module = getattr(found, "__code__", None), getattr(found, "__globals__", {})
    used = [found, *module.values()]
    return code is not None and (
        any(str(getattr(one, "__module__", "")).startswith("pettingzoo") for one in used)
        or any(str(getattr(one, "__name__", "")).startswith("pettingzoo") for one in used)
        or any(makes_environments(one) for one in module.values() if isinstance(one, type))
        or any("pettingzoo" in name for name in code.co_names)
    )


def _without_mask(space: spaces.Space[Any]) -> spaces.Space[Any]:
    assert isinstance(space, spaces.Dict)
    return space["observation"]


def _flat_box(agent: str, space: spaces.Space[Any]) -> spaces.Box:
    flat = spaces.flatten_space(space)
    if not isinstance(flat, spaces.Box):
        raise ConfigError(f"observation space of '{agent}' cannot be flattened: {space}")
    return spaces.Box(-np.inf, np.inf, flat.shape, np.float32)


def _has_state(env: ParallelEnv[Any, Any, Any]) -> bool:
    """Return whether the environment can tell its state (PettingZoo's default raises)."""
    env.reset(seed=0)
    try:
        env.state()
    except (NotImplementedError, AttributeError):
        return False
    return True


def _mask_width(space: spaces.Space[Any]) -> int:
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    raise ConfigError(f"an action mask for space {space} is not supported")


def _split_mask(mask: Tensor, space: spaces.Space[Any]) -> Any:
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(torch.split(mask, space.nvec.tolist(), dim=-1))
    return mask


def _numpy(action: Action) -> Any:
    if isinstance(action, tuple):
        return tuple(part.cpu().numpy() for part in action)
    return action.cpu().numpy()


def _row(column: Any, index: int, space: spaces.Space[Any]) -> Any:
    """Return one environment's action in the form that its space asks for."""
    if isinstance(space, spaces.Discrete):
        return int(column[index])
    if isinstance(space, spaces.Tuple):
        return tuple(
            _row(part, index, inner) for part, inner in zip(column, space.spaces, strict=True)
        )
    return np.asarray(column[index], dtype=space.dtype)
