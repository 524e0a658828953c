"""Small environments for the learners' tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from agents.learners.config import SamplingConfig
from marec_env import random
from marec_env.vector import Action, VecStep


class MixedTeam:
    """Three agents with different spaces; observations carry (session, agent, step).

    Episodes last three to six steps, end by termination or truncation in turn, and the third agent
    acts at every second step only. Agent ``b`` may not choose its last action.
    """

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.agents = ("a", "b", "c")
        self.turns: tuple[tuple[str, ...], ...] = (self.agents,)
        sizes = {"a": 4, "b": 5, "c": 3}
        self.observation_spaces = {
            k: spaces.Box(-np.inf, np.inf, (n,), np.float32) for k, n in sizes.items()
        }
        self.action_spaces: dict[str, spaces.Space[Any]] = {
            "a": spaces.Box(-1.0, 2.0, (2,), np.float32),
            "b": spaces.MultiDiscrete([3, 2]),
            "c": spaces.Discrete(4),
        }
        self.state_space = spaces.Box(-np.inf, np.inf, (6,), np.float32)
        self.step_count = 0
        self._age = torch.zeros(num_envs, dtype=torch.int64)
        self._seed = 0
        self._actions: dict[str, Action] = {}

    def _noise(self, lanes: int, stream: str) -> Tensor:
        keys = random.session_keys(self._seed, torch.arange(self.num_envs))
        return random.normal(keys, self.step_count, stream, lanes)

    def observe(self, agent: str) -> Tensor:
        size = self.observation_spaces[agent].shape[0]
        ids = torch.stack(
            [
                torch.arange(self.num_envs, dtype=torch.float32),
                torch.full((self.num_envs,), float(self.agents.index(agent))),
                torch.full((self.num_envs,), float(self.step_count)),
            ],
            dim=-1,
        )
        return torch.cat([ids, self._noise(size - 3, agent)], dim=-1) if size > 3 else ids

    def _result(self, rewards: dict[str, Tensor], ended: Tensor) -> VecStep:
        state = torch.cat([self.observe("a"), self._age.unsqueeze(-1).float()], dim=-1)
        state = torch.cat([state, torch.ones(self.num_envs, 1)], dim=-1)
        observations = {agent: self.observe(agent) for agent in self.agents}
        odd = torch.arange(self.num_envs) % 2 == 1
        mask = torch.ones(self.num_envs, 2, dtype=torch.bool)
        mask[:, 1] = False
        return VecStep(
            observations=observations,
            state=state,
            rewards=rewards,
            terminated=ended & odd,
            truncated=ended & ~odd,
            final_state=state + 0.25 * ended.float().unsqueeze(-1),
            final_observations={k: v + 0.25 for k, v in observations.items()},
            active={"c": torch.full((self.num_envs,), self.step_count % 2 == 0)},
            action_masks={"b": (torch.ones(self.num_envs, 3, dtype=torch.bool), mask)},
            metrics={"team_reward": torch.stack(list(rewards.values())).mean(dim=0)},
            episodes={"length": torch.ones(int(ended.sum()))},
        )

    def reset(self, seed: int) -> VecStep:
        self._seed, self.step_count = seed, 0
        self._age = torch.zeros(self.num_envs, dtype=torch.int64)
        zeros = torch.zeros(self.num_envs)
        return self._result(dict.fromkeys(self.agents, zeros), zeros.bool())

    def act(self, actions: Mapping[str, Action]) -> None:
        self._actions.update(actions)

    def advance(self) -> VecStep:
        self.step_count += 1
        self._age += 1
        ended = self._age >= 3 + torch.arange(self.num_envs) % 4
        self._age[ended] = 0
        noise = self._noise(3, "reward")
        a, b, c = (self._actions[k] for k in self.agents)
        assert isinstance(a, Tensor) and isinstance(b, Tensor) and isinstance(c, Tensor)
        assert a.shape == (self.num_envs, 2) and b.shape == (self.num_envs, 2)
        rewards = {
            "a": 1.0 - a.square().mean(dim=-1) + 0.1 * noise[:, 0],
            "b": (b[:, 0] == 1).float() + 0.1 * noise[:, 1],
            "c": (c == 2).float() + 0.1 * noise[:, 2],
        }
        self._actions = {}
        return self._result(rewards, ended)

    def step(self, actions: Mapping[str, Action]) -> VecStep:
        self.act(actions)
        return self.advance()

    def state_dict(self) -> dict[str, Any]:
        return {"age": self._age.clone(), "step": self.step_count, "seed": self._seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._age, self.step_count = state["age"].clone(), state["step"]
        self._seed = state["seed"]

    def close(self) -> None:
        pass


@pytest.fixture
def mixed_team() -> type[MixedTeam]:
    return MixedTeam


@pytest.fixture
def small_sampling() -> SamplingConfig:
    return SamplingConfig(num_sessions=8, rollout_length=10)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
