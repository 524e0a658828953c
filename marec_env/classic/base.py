"""What the classic simulators share: sessions, their keys and their state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from marec_env import random
from marec_env.catalog.population import Population
from marec_env.users.base import Feedback, pick, rows_of
from marec_env.users.config import UsersConfig

__all__ = ["ClassicUsers"]

_RESET_LANES = 8  # 0: user, 1: whether new, the others the model's own


class ClassicUsers(ABC):
    """``B`` users with one item table; a model adds its state and its response."""

    behaviours: tuple[str, ...] = ("click",)
    hidden_size: int

    def __init__(
        self, config: UsersConfig, population: Population, num_sessions: int, device: torch.device
    ) -> None:
        """Args:
        config: the section ``users``.
        population: factors need not have unit length here.
        num_sessions: B.
        device: where all tensors live.
        """
        self.config = config
        self.population = population
        self.num_sessions = num_sessions
        self.num_items = population.num_items
        self.device = device
        self.user_index = torch.zeros(num_sessions, dtype=torch.int64, device=device)
        self.is_new = torch.zeros(num_sessions, dtype=torch.bool, device=device)
        self.request_index = torch.zeros(num_sessions, dtype=torch.int64, device=device)
        self._keys = torch.zeros(num_sessions, dtype=torch.int64, device=device)

    def reset(self, keys: Tensor, where: Tensor | None = None) -> None:
        """Begin new episodes; see :meth:`marec_env.users.base.Users.reset`."""
        rows = rows_of(where, self.num_sessions, self.device)
        if rows.numel() == 0:
            return
        keys = keys[rows]
        draw = random.uniform(keys, 0, "users/reset", _RESET_LANES)
        users = pick(draw[:, 0], self.population.num_users)
        self._keys[rows] = keys
        self.user_index[rows] = users
        self.is_new[rows] = draw[:, 1] < self.config.new_user_share
        self.request_index[rows] = 0
        self._begin(rows, users, draw[:, 2:])

    @abstractmethod
    def _begin(self, rows: Tensor, users: Tensor, draw: Tensor) -> None:
        """Set the model's state of ``rows`` for ``users``, by uniform ``draw`` ``[n, 6]``."""

    @abstractmethod
    def respond(self, slate: Tensor) -> Feedback:
        """Show ``slate``; see :meth:`marec_env.users.base.Users.respond`."""

    @abstractmethod
    def click_probability(self, items: Tensor | None = None) -> Tensor:
        """See :meth:`marec_env.users.base.Users.click_probability`."""

    @abstractmethod
    def long_term_relevance(
        self, items: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """See :meth:`marec_env.users.base.Users.long_term_relevance`."""

    @abstractmethod
    def hidden_state(self) -> Tensor:
        """See :meth:`marec_env.users.base.Users.hidden_state`."""

    @abstractmethod
    def _model_state(self) -> dict[str, Tensor]:
        """Return the live tensors of the model's own state."""

    def _state(self) -> dict[str, Tensor]:
        return {
            "keys": self._keys,
            "user_index": self.user_index,
            "is_new": self.is_new,
            "request_index": self.request_index,
            **self._model_state(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return copies of everything needed to continue exactly."""
        return {name: value.clone() for name, value in self._state().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        for name, value in self._state().items():
            value.copy_(state[name])

    def _score(self, interest: Tensor, items: Tensor | None) -> Tensor:
        """Return ``u . x`` of ``[B, d]`` interests with int64 ``[B, M]`` items, or with all."""
        factors = self.population.item_factors
        if items is None:
            return interest @ factors.T
        return torch.bmm(factors[items], interest.unsqueeze(2)).squeeze(2)
