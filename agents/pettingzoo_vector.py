"""Copies of a PettingZoo parallel environment as a vector environment.

RLlib's own wrapper never ends an episode in which some agents terminate and others truncate, resets
unseeded, and has no ``state()``; this one keeps each agent's own end, lets agents come and go,
seeds every episode from (run seed, environment, episode), and gives the critic ``state()`` or the
concatenated observations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv
from torch import Tensor

from agents.pettingzoo_spaces import (
    Observations,
    action_of,
    flat_mask,
    mask_width,
    may_act,
    split_mask,
)
from marec_env import random
from marec_env.errors import ConfigError, RunError
from marec_env.registry import naming
from marec_env.vector import Action, VecStep

__all__ = ["AgentVecStep", "PettingZooVectorEnv"]

_STREAM = "pettingzoo/episode"
_SEED_LIMIT = 1 << 31  # gymnasium's and numpy's seeds are non-negative and fit 32 bits


@dataclass(slots=True)
class AgentVecStep(VecStep):
    """A step in which an agent may end before its team does."""

    agent_terminated: dict[str, Tensor] = field(default_factory=dict)
    """Per agent, bool ``[B]``: it ended by itself in this step."""
    agent_truncated: dict[str, Tensor] = field(default_factory=dict)
    """Per agent, bool ``[B]``: it was cut off in this step."""


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
        self._name = f"environment '{type(first).__name__}'"
        self.agents = tuple(str(agent) for agent in first.possible_agents)
        self._raw = dict(zip(self.agents, first.possible_agents, strict=True))
        self.turns: tuple[tuple[str, ...], ...] = (self.agents,)
        self._readers = {
            a: Observations(a, first.observation_space(raw)) for a, raw in self._raw.items()
        }
        self.observation_spaces = {a: reader.box for a, reader in self._readers.items()}
        self.action_spaces: dict[str, spaces.Space[Any]] = {
            a: first.action_space(raw) for a, raw in self._raw.items()
        }
        size = sum(reader.size for reader in self._readers.values())
        own = _state_of(first) if state == "own" else None
        self._own_state = own is not None
        self.state_space = spaces.Box(
            -np.inf, np.inf, (size if own is None else own.size,), np.float32
        )
        B = num_envs
        self._observations = {
            a: np.zeros((B, reader.size), np.float32) for a, reader in self._readers.items()
        }
        self._state = np.zeros((B, self.state_space.shape[0]), np.float32)
        self._present = {a: np.zeros(B, bool) for a in self.agents}
        self._active = {a: np.zeros(B, bool) for a in self.agents}
        # Agents that ended and are listed all the same, which some environments do.
        self._gone = {a: np.zeros(B, bool) for a in self.agents}
        self._masks: dict[str, NDArray[np.bool_]] = {}
        self._seed = 0
        self._episode = np.zeros(num_envs, np.int64)
        self._history: list[list[dict[str, Any]]] = [[] for _ in range(num_envs)]
        self._returns = np.zeros((num_envs, len(self.agents)))
        self._lengths = np.zeros(num_envs, np.int64)
        self._cut = np.zeros(num_envs, bool)
        self._pending: dict[str, Action] = {}

    def _episode_seed(self, index: int) -> int:
        key = random.session_keys(self._seed, torch.tensor([index]))
        return int(random.integers(key, int(self._episode[index]), _STREAM, 1, _SEED_LIMIT))

    def _reset_one(self, index: int) -> None:
        env = self._envs[index]
        with naming(f"{self._name}: reset"):
            observations, infos = env.reset(seed=self._episode_seed(index))
        self._history[index] = []
        self._returns[index] = 0.0
        self._lengths[index] = 0
        self._cut[index] = False
        for gone in self._gone.values():
            gone[index] = False
        self._write(index, observations, infos)
        if not any(present[index] for present in self._present.values()):
            raise RunError(f"{self._name}: no agent plays after reset (env.agents is empty)")

    def _write(self, index: int, observations: Mapping[Any, Any], infos: Mapping[Any, Any]) -> None:
        """Write who plays, and one environment's observations, masks and state, into buffers."""
        env = self._envs[index]
        playing = set(env.agents)
        strange = playing.difference(self._raw.values())
        if strange:
            raise RunError(
                f"{self._name}: agent '{min(map(str, strange))}' is not among its possible_agents;"
                " a team is a fixed list"
            )
        for agent, raw in self._raw.items():
            gone = self._gone[agent]
            gone[index] &= raw in playing
            self._present[agent][index] = raw in playing and not gone[index]
            row, value = self._observations[agent][index], observations.get(raw)
            self._active[agent][index] = self._present[agent][index] and value is not None
            if value is None:
                row[:] = 0.0
                continue
            mask = self._readers[agent].read(value, (infos or {}).get(raw), row)
            if mask is not None or agent in self._masks:
                self._write_mask(index, agent, mask)
        if self._own_state:
            state = np.asarray(env.state(), np.float32).reshape(-1)
            if state.size != self._state.shape[1]:
                raise RunError(
                    f"{self._name}: state() has {state.size} numbers, at first it had"
                    f" {self._state.shape[1]}; environment.state: observations does without it"
                )
            self._state[index] = state
        else:
            np.concatenate(
                [self._observations[a][index] for a in self.agents], out=self._state[index]
            )

    def _write_mask(self, index: int, agent: str, mask: Any) -> None:
        space = self.action_spaces[agent]
        if agent not in self._masks:
            self._masks[agent] = np.ones((self.num_envs, mask_width(space)), bool)
        flat = flat_mask(agent, space, mask)
        choice = may_act(agent, space, flat)
        self._active[agent][index] &= choice
        self._masks[agent][index] = flat if choice else True

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
        for agent in self.agents:
            columns = (self._observations[agent], final[agent], rewards[agent])
            if not all(np.isfinite(column).all() for column in columns):
                raise RunError(
                    f"{self._name}: the observation or the reward of '{agent}' is not finite"
                )
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
                a: split_mask(torch.from_numpy(m.copy()), self.action_spaces[a])
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
        for index in range(B):
            actions = {
                self._raw[a]: action_of(
                    columns[a], index, self.action_spaces[a], not self._active[a][index]
                )
                for a in self.agents
                if self._present[a][index]
            }
            self._history[index].append(actions)
            self._play(index, actions, rewards, own_terminated, own_truncated)
            if not any(self._present[a][index] for a in self.agents):
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
        before = [a for a in self.agents if self._present[a][index]]
        with naming(f"{self._name}: step"):
            observations, paid, terms, truncs, infos = self._envs[index].step(dict(actions))
            for agent in before:
                raw = self._raw[agent]
                rewards[agent][index] = paid.get(raw, 0.0)
                term, trunc = bool(terms.get(raw, False)), bool(truncs.get(raw, False))
                own_terminated[agent][index] = term
                own_truncated[agent][index] = trunc and not term
                self._gone[agent][index] = term or trunc
                self._cut[index] |= trunc and not term
        self._write(index, observations, infos)
        for agent in before:
            # Who left without a word has ended by itself.
            if not (self._present[agent][index] or own_truncated[agent][index]):
                own_terminated[agent][index] = True

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


def _state_of(env: ParallelEnv[Any, Any, Any]) -> NDArray[np.float32] | None:
    """Return a first state, or None where the environment has none (PettingZoo's default raises).

    Raises:
        ConfigError: it is no array of numbers.
    """
    with naming(f"environment '{type(env).__name__}': reset"):
        env.reset(seed=0)
    try:
        return np.asarray(env.state(), np.float32)
    except (NotImplementedError, AttributeError):
        return None
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"environment '{type(env).__name__}': state() gives no array of numbers ({error}); set"
            " environment.state: observations"
        ) from error


def _numpy(action: Action) -> Any:
    if isinstance(action, tuple):
        return tuple(part.cpu().numpy() for part in action)
    return action.cpu().numpy()
