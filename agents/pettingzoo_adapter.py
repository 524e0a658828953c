"""PettingZoo parallel environments that were written elsewhere, as vector environments.

RLlib's own wrapper never ends an episode in which some agents terminate and others truncate, resets
unseeded, and has no ``state()``; this one keeps each agent's own end, lets agents come and go,
seeds every episode from (run seed, environment, episode), and gives the critic ``state()`` or the
concatenated observations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv
from pydantic import Field
from torch import Tensor

from agents import pettingzoo_spaces as forms
from marec_env import random
from marec_env.config import ConfigModel
from marec_env.errors import ConfigError, PluginError, RunError
from marec_env.registry import load_object, naming
from marec_env.vector import Action, VecStep, map_parts

_STREAM = "pettingzoo/episode"
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


def make_pettingzoo(config: PettingZooConfig, num_envs: int | None = None) -> PettingZooVectorEnv:
    """Return the vector environment of a configuration, of ``num_envs`` copies if given.

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
        with naming(f"environment '{config.entry_point}'"):
            env = function(**config.kwargs)
    except PluginError as error:
        if isinstance(error.__cause__, TypeError):
            raise ConfigError(f"kwargs of '{config.entry_point}': {error.__cause__}") from error
        raise
    if not hasattr(env, "possible_agents") or hasattr(env, "agent_iter"):
        raise ConfigError(
            f"'{config.entry_point}' gives {type(env).__name__}, not a PettingZoo ParallelEnv with"
            " possible_agents (an AEC environment's module has a parallel_env function for it)"
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
        any(
            str(getattr(one, name, "")).startswith("pettingzoo")
            for one in used
            for name in ("__module__", "__name__")
        )
        or any(makes_environments(one) for one in module.values() if isinstance(one, type))
        or any("pettingzoo" in name for name in code.co_names)
    )


class _Player:
    """One agent in all ``B`` copies."""

    def __init__(self, raw: Any, env: ParallelEnv[Any, Any, Any], num_envs: int) -> None:
        self.raw = raw
        self.name = str(raw)
        self.reader = forms.Observations(self.name, env.observation_space(raw))
        self.space: spaces.Space[Any] = env.action_space(raw)
        self.observation = np.zeros((num_envs, self.reader.size), np.float32)
        self.present, self.active, self.gone, self.terminated, self.truncated = (
            np.zeros(num_envs, bool) for _ in range(5)
        )
        """Of these, ``gone`` has ended and may be listed all the same, as in some environments."""
        self.mask: NDArray[np.bool_] | None = None
        self.reward, self.total = np.zeros(num_envs), np.zeros(num_envs)

    def take_mask(self, index: int, mask: Any) -> None:
        """Write a mask as given in copy ``index``."""
        if self.mask is None:
            self.mask = np.ones((len(self.present), forms.mask_width(self.space)), bool)
        flat = forms.flat_mask(self.name, self.space, mask)
        choice = forms.may_act(self.name, self.space, flat)
        self.active[index] &= choice
        self.mask[index] = flat if choice else True


class PettingZooVectorEnv:
    """``num_envs`` copies of a parallel environment, stepped in one process.

    Observations are flattened, masks taken from them or from ``infos``
    (:mod:`agents.pettingzoo_spaces`). An agent plays while it is in ``env.agents``: one that has
    ended, or has not come yet, observes zeros, earns nothing and is inactive; so is one without an
    observation, or whose mask is all zeros. The episode ends when nobody plays any more. The team
    is then truncated if any agent was, and terminated otherwise.

    :meth:`state_dict` holds the seed and the actions of the current episodes, and
    :meth:`load_state_dict` plays them again: exact for any environment that is a function of both.
    """

    def __init__(
        self,
        make: Callable[[], ParallelEnv[Any, Any, Any]],
        num_envs: int,
        state: Literal["own", "observations"] = "own",
    ) -> None:
        """Raises:
        ConfigError: a space cannot be used.
        """
        self.num_envs = num_envs
        self._envs = [make() for _ in range(num_envs)]
        first = self._envs[0]
        self._name = f"environment '{type(first).__name__}'"
        self._players = [_Player(raw, first, num_envs) for raw in first.possible_agents]
        self.agents = tuple(player.name for player in self._players)
        self.turns: tuple[tuple[str, ...], ...] = (self.agents,)
        self.observation_spaces = {p.name: p.reader.box for p in self._players}
        self.action_spaces = {p.name: p.space for p in self._players}
        own = forms.state_of(first) if state == "own" else None
        self._own_state = own is not None
        size = own.size if own is not None else sum(p.reader.size for p in self._players)
        self.state_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self._state = np.zeros((num_envs, size), np.float32)
        self._seed = 0
        self._session = np.arange(num_envs)
        self._episode = np.zeros(num_envs, np.int64)
        self._history: list[list[dict[str, Any]]] = [[] for _ in range(num_envs)]
        self._cut = np.zeros(num_envs, bool)
        self._pending: dict[str, Action] = {}

    def _reset_one(self, index: int) -> None:
        key = random.session_keys(self._seed, torch.tensor([self._session[index]]))
        seed = int(random.integers(key, int(self._episode[index]), _STREAM, 1, _SEED_LIMIT))
        with naming(f"{self._name}: reset"):
            observations, infos = self._envs[index].reset(seed=seed)
        self._history[index] = []
        self._cut[index] = False
        for player in self._players:
            player.total[index], player.gone[index] = 0.0, False
        self._write(index, observations, infos)
        if not self._plays(index):
            raise RunError(f"{self._name}: no agent plays after reset (env.agents is empty)")

    def _plays(self, index: int) -> bool:
        return any(player.present[index] for player in self._players)

    def _write(self, index: int, observations: Mapping[Any, Any], infos: Mapping[Any, Any]) -> None:
        """Write who plays, and one environment's observations, masks and state, into buffers."""
        env = self._envs[index]
        playing = set(env.agents)
        strange = playing.difference(player.raw for player in self._players)
        if strange:
            raise RunError(
                f"{self._name}: agent '{min(map(str, strange))}' is not among its possible_agents;"
                " a team is a fixed list"
            )
        for player in self._players:
            row, value = player.observation[index], observations.get(player.raw)
            player.gone[index] &= player.raw in playing
            player.present[index] = player.raw in playing and not player.gone[index]
            player.active[index] = player.present[index] and value is not None
            if value is None:
                row[:] = 0.0
                continue
            mask = player.reader.read(value, (infos or {}).get(player.raw), row)
            if mask is not None or player.mask is not None:
                player.take_mask(index, mask)
        if not self._own_state:
            rows = [player.observation[index] for player in self._players]
            np.concatenate(rows, out=self._state[index])
            return
        state = np.asarray(env.state(), np.float32).reshape(-1)
        if state.size != self._state.shape[1]:
            raise RunError(
                f"{self._name}: state() has {state.size} numbers, at first it had"
                f" {self._state.shape[1]}; environment.state: observations does without it"
            )
        self._state[index] = state

    def reset(self, seed: int) -> VecStep:
        """Start new episodes everywhere."""
        return self.begin(torch.arange(self.num_envs), seed)

    def begin(self, sessions: Tensor, seed: int) -> VecStep:
        """Start the first episodes of sessions, int64 ``[B]``: the same whatever the copy."""
        self._seed, self._session = seed, sessions.numpy().copy()
        self._episode[:] = 0
        self._clear()
        for index in range(self.num_envs):
            self._reset_one(index)
        return self._result([])

    def _clear(self) -> None:
        for player in self._players:
            for column in (player.reward, player.terminated, player.truncated):
                column[:] = 0

    def _columns(self, name: str) -> dict[str, Tensor]:
        return {p.name: torch.from_numpy(getattr(p, name).copy()) for p in self._players}

    def _result(self, over: list[int]) -> VecStep:
        """Return what happened; episodes of the copies ``over`` ended, and new ones begin there."""
        final, final_state = self._columns("observation"), torch.from_numpy(self._state.copy())
        ended = np.zeros(self.num_envs, bool)
        ended[over] = True
        returns = np.mean([player.total[over] for player in self._players], axis=0)
        lengths, cut = [len(self._history[index]) for index in over], self._cut.copy()
        for index in over:
            self._episode[index] += 1
            self._reset_one(index)
        for player in self._players:
            columns = (player.observation, final[player.name].numpy(), player.reward)
            if not all(np.isfinite(column).all() for column in columns):
                raise RunError(
                    f"{self._name}: the observation or the reward of '{player.name}' is not finite"
                )
        rewards = {p.name: torch.from_numpy(p.reward.astype(np.float32)) for p in self._players}
        return VecStep(
            observations=self._columns("observation"),
            state=torch.from_numpy(self._state.copy()),
            rewards=rewards,
            terminated=torch.from_numpy(ended & ~cut),
            truncated=torch.from_numpy(ended & cut),
            final_state=final_state,
            final_observations=final,
            active=self._columns("active"),
            action_masks={
                p.name: forms.split_mask(torch.from_numpy(p.mask.copy()), p.space)
                for p in self._players
                if p.mask is not None
            },
            metrics={"team_reward": torch.stack(list(rewards.values())).mean(dim=0)},
            episodes={
                "return": torch.tensor(returns, dtype=torch.float32),
                "length": torch.tensor(lengths, dtype=torch.float32),
            },
            agent_terminated=self._columns("terminated"),
            agent_truncated=self._columns("truncated"),
        )

    def observe(self, agent: str) -> Tensor:
        """Return an agent's current observation, ``[B, d_i]``."""
        return torch.from_numpy(self._players[self.agents.index(agent)].observation.copy())

    def act(self, actions: Mapping[str, Action]) -> None:
        """Take all agents' actions."""
        self._pending = dict(actions)

    def advance(self) -> VecStep:
        """Step every copy; start new episodes where they ended."""
        columns = {agent: map_parts(_numpy, self._pending[agent]) for agent in self.agents}
        self._clear()
        for index in range(self.num_envs):
            actions = {
                p.raw: forms.action_of(columns[p.name], index, p.space, not p.active[index])
                for p in self._players
                if p.present[index]
            }
            self._play(index, actions)
        return self._result([index for index in range(self.num_envs) if not self._plays(index)])

    def _play(self, index: int, actions: dict[Any, Any]) -> None:
        """Step one copy, writing its results into row ``index``."""
        self._history[index].append(actions)
        before = [player for player in self._players if player.present[index]]
        with naming(f"{self._name}: step"):
            observations, paid, terms, truncs, infos = self._envs[index].step(dict(actions))
            for player in before:
                player.reward[index] = paid.get(player.raw, 0.0)
                term, trunc = (bool(flags.get(player.raw, False)) for flags in (terms, truncs))
                player.terminated[index] = term
                player.truncated[index] = trunc and not term
                player.gone[index] = term or trunc
                self._cut[index] |= trunc and not term
                player.total[index] += player.reward[index]
        self._write(index, observations, infos)
        for player in before:
            # Who left without a word has ended by itself.
            if not (player.present[index] or player.truncated[index]):
                player.terminated[index] = True

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
        self._seed, self._session = int(state["seed"]), np.arange(self.num_envs)
        self._episode[:] = state["episode"]
        raw = {player.name: player.raw for player in self._players}
        for index, steps in enumerate(state["history"]):
            self._reset_one(index)
            for actions in steps:
                self._play(index, {raw[agent]: action for agent, action in actions.items()})

    def close(self) -> None:
        """Close every copy."""
        for env in self._envs:
            env.close()  # type: ignore[no-untyped-call]


def _numpy(part: Tensor) -> NDArray[Any]:
    return part.cpu().numpy()
