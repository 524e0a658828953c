"""Matrix games with known answers, as vector environments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from marec_env.vector import Action, VecStep

__all__ = ["MatrixGame", "TwoStepGame", "coordination", "penalty", "two_step"]


class MatrixGame:
    """A one-shot game repeated: every step is an episode of one joint action.

    Agents ``player_0``, ``player_1``, ... see a constant; the state is a constant too.
    """

    def __init__(self, payoffs: Tensor, num_envs: int) -> None:
        """Args:
        payoffs: float ``[n or 1, A_1, ..., A_n]``; a first dimension of 1 pays all players alike.
        num_envs: sessions.

        Raises:
            ValueError: the first dimension is neither 1 nor the number of players.
        """
        num_players = payoffs.dim() - 1
        if payoffs.shape[0] not in (1, num_players):
            raise ValueError(
                f"payoffs of shape {tuple(payoffs.shape)} name {num_players} players; the first"
                f" dimension must be 1 or {num_players}"
            )
        self.payoffs = payoffs.to(torch.float32).expand(num_players, *payoffs.shape[1:])
        sizes = list(payoffs.shape[1:])
        self._strides = torch.tensor(
            [math.prod(sizes[player + 1 :]) for player in range(num_players)]
        )
        self.num_envs = num_envs
        self.agents = tuple(f"player_{i}" for i in range(num_players))
        self.turns: tuple[tuple[str, ...], ...] = (self.agents,)
        box = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.observation_spaces: Mapping[str, spaces.Box] = dict.fromkeys(self.agents, box)
        self.action_spaces: Mapping[str, spaces.Space[Any]] = {
            agent: spaces.Discrete(n)
            for agent, n in zip(self.agents, payoffs.shape[1:], strict=True)
        }
        self.state_space = box
        self._chosen: dict[str, Tensor] = {}

    def _result(self, rewards: Tensor, ended: bool) -> VecStep:
        constant = torch.ones(self.num_envs, 1)
        flags = torch.full((self.num_envs,), ended)
        team = rewards.mean(dim=0)
        observations = dict.fromkeys(self.agents, constant)
        return VecStep(
            observations=observations,
            state=constant,
            rewards=dict(zip(self.agents, rewards, strict=True)),
            terminated=flags,
            truncated=torch.zeros_like(flags),
            final_state=constant,
            final_observations=observations,
            metrics={"team_reward": team} if ended else {},
            episodes={"return": team} if ended else {},
        )

    def reset(self, seed: int) -> VecStep:
        """Start; the game draws nothing."""
        self._chosen = {}
        return self._result(torch.zeros(len(self.agents), self.num_envs), ended=False)

    def observe(self, agent: str) -> Tensor:
        """Return the constant, ``[B, 1]``."""
        return torch.ones(self.num_envs, 1)

    def act(self, actions: Mapping[str, Action]) -> None:
        """Take the joint action."""
        for agent, action in actions.items():
            assert isinstance(action, Tensor)
            self._chosen[agent] = action

    def advance(self) -> VecStep:
        """Pay the joint action."""
        cell = torch.stack([self._chosen[agent] for agent in self.agents], dim=-1)
        rewards = self.payoffs.flatten(1)[:, (cell * self._strides).sum(dim=-1)]
        self._chosen = {}
        return self._result(rewards, ended=True)

    def step(self, actions: Mapping[str, Action]) -> VecStep:
        """Act, then advance."""
        self.act(actions)
        return self.advance()

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: no state outlives a step."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue; nothing to load."""

    def close(self) -> None:
        """Release nothing."""


class TwoStepGame:
    """Player 0 chooses a second game; both then play it (Rashid et al., QMIX, JMLR 2020).

    The first step pays nothing. Game A pays 7 whatever is played, game B ``[[0, 1], [1, 8]]``.
    State and observations are the one-hot position: start, A, B.
    """

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.agents = ("player_0", "player_1")
        self.turns: tuple[tuple[str, ...], ...] = (self.agents,)
        box = spaces.Box(0.0, 1.0, (3,), np.float32)
        self.observation_spaces: Mapping[str, spaces.Box] = dict.fromkeys(self.agents, box)
        self.action_spaces: Mapping[str, spaces.Space[Any]] = dict.fromkeys(
            self.agents, spaces.Discrete(2)
        )
        self.state_space = box
        self._payoffs = torch.tensor(
            [[[0.0, 0.0], [0.0, 0.0]], [[7.0, 7.0], [7.0, 7.0]], [[0.0, 1.0], [1.0, 8.0]]]
        )
        self._position = torch.zeros(num_envs, dtype=torch.int64)
        self._chosen: dict[str, Tensor] = {}

    def _one_hot(self, position: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(position, 3).to(torch.float32)

    def reset(self, seed: int) -> VecStep:
        """Start everywhere; the game draws nothing."""
        self._position = torch.zeros(self.num_envs, dtype=torch.int64)
        zeros = torch.zeros(self.num_envs)
        return self._result(zeros, self._position, zeros.bool())

    def _result(self, reward: Tensor, reached: Tensor, ended: Tensor) -> VecStep:
        state, final = self._one_hot(self._position), self._one_hot(reached)
        return VecStep(
            observations=dict.fromkeys(self.agents, state),
            state=state,
            rewards=dict.fromkeys(self.agents, reward),
            terminated=ended,
            truncated=torch.zeros_like(ended),
            final_state=final,
            final_observations=dict.fromkeys(self.agents, final),
            metrics={"team_reward": reward},
            episodes={"return": reward[ended]},
        )

    def observe(self, agent: str) -> Tensor:
        """Return the one-hot position, ``[B, 3]``."""
        return self._one_hot(self._position)

    def act(self, actions: Mapping[str, Action]) -> None:
        """Take both players' actions."""
        for agent, action in actions.items():
            assert isinstance(action, Tensor)
            self._chosen[agent] = action

    def advance(self) -> VecStep:
        """Move to the chosen game, or pay it and start again."""
        first, second = self._chosen["player_0"], self._chosen["player_1"]
        reward = self._payoffs[self._position, first, second]
        ended = self._position > 0
        reached = torch.where(ended, self._position, first + 1)
        self._position = torch.where(ended, 0, reached)
        self._chosen = {}
        return self._result(reward, reached, ended)

    def step(self, actions: Mapping[str, Action]) -> VecStep:
        """Act, then advance."""
        self.act(actions)
        return self.advance()

    def state_dict(self) -> dict[str, Any]:
        """Return the position of each session."""
        return {"position": self._position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._position = state["position"].clone()

    def close(self) -> None:
        """Release nothing."""


def penalty(k: float, num_envs: int = 64) -> MatrixGame:
    """Return the penalty game ``[[k, 0, 10], [0, 2, 0], [10, 0, k]]``, paid to both players.

    Claus and Boutilier, "The Dynamics of Reinforcement Learning in Cooperative Multiagent
    Systems", AAAI 1998.
    """
    table = torch.tensor([[k, 0.0, 10.0], [0.0, 2.0, 0.0], [10.0, 0.0, k]])
    return MatrixGame(table.unsqueeze(0), num_envs)


def two_step(num_envs: int = 64) -> TwoStepGame:
    """Return the two-step game; its optimum pays 8."""
    return TwoStepGame(num_envs)


def coordination(num_players: int = 4, num_envs: int = 64) -> MatrixGame:
    """Return a game that pays 1 if half the players choose 0 and the other half 1, in one of the
    two ways in which the halves are the first and the second players.

    Policies without an agent id that share parameters, each choosing 0 with probability p, earn
    ``2 p^(n/2) (1-p)^(n/2)``, at most 0.125 for four players; separate policies earn 1.
    """
    half = num_players // 2
    table = torch.zeros([2] * num_players)
    table[(*[0] * half, *[1] * half)] = 1.0
    table[(*[1] * half, *[0] * half)] = 1.0
    return MatrixGame(table.unsqueeze(0), num_envs)
