"""Users composed of modules by configuration; with the default configuration, the preset ``marec``.

Within a request, in this order: the interest of the moment gives each shown item a logit, boredom
lowers it, examination and choice turn it into clicks, behaviours follow; then exposure, patience,
satisfaction and intent move on. What :meth:`ComposedUsers.click_probability` says between two
requests is therefore exactly what the next response draws from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding

from marec_env import random
from marec_env.users.base import Feedback
from marec_env.users.behaviours import Behaviours
from marec_env.users.boredom import ExposureBoredom
from marec_env.users.config import UsersConfig
from marec_env.users.draws import INTENT_PICK, INTENT_SWITCH, LEAVE, pick, request_draws
from marec_env.users.examination import Examination
from marec_env.users.intent import Intent
from marec_env.users.patience import Patience
from marec_env.users.population import Population

__all__ = ["ComposedUsers"]

_USER, _NEW, _BORED, _INTENT = range(4)  # columns of the numbers drawn at a reset
_RESET_LANES = 8  # four to spare, so that a new module does not move the others' numbers


class ComposedUsers:
    """``B`` users of a population (implements :class:`marec_env.users.base.Users`)."""

    def __init__(
        self, config: UsersConfig, population: Population, num_sessions: int, device: torch.device
    ) -> None:
        """Args:
        config: the section ``users``.
        population: who the users are; its tensors must be on ``device``.
        num_sessions: B.
        device: where all tensors live.
        """
        self.config = config
        self.population = population
        self.num_sessions = num_sessions
        self.num_items = population.num_items
        self.device = device
        self._behaviours = Behaviours(config.behaviours)
        self.behaviours = self._behaviours.names
        self._examination = Examination(config.examination, device)
        self._boredom = ExposureBoredom(
            config.boredom, num_sessions, population.topics, population.num_topics
        )
        self._patience = Patience(config.patience, num_sessions, device)
        self._intent = Intent(config.intent, num_sessions, population)

        scale = population.scale * config.relevance.scale_factor
        offset = population.quality + (population.intercept + config.relevance.intercept_shift)
        # The logit's constant rides along as one more factor: one product gives the whole logit.
        self._items = torch.cat([scale * population.item_factors, offset.unsqueeze(1)], dim=1)
        size = population.user_factors.shape[1]
        self._interest = torch.ones(num_sessions, size + 1, device=device)
        self._taste = torch.zeros(num_sessions, size, device=device)

        self.user_index = torch.zeros(num_sessions, dtype=torch.int64, device=device)
        self.is_new = torch.zeros(num_sessions, dtype=torch.bool, device=device)
        self.request_index = torch.zeros(num_sessions, dtype=torch.int64, device=device)
        self.susceptibility = torch.zeros(num_sessions, device=device)
        """Float32 ``[B]``: logits lost at full boredom."""
        self.satisfaction = torch.zeros(num_sessions, device=device)
        """Float32 ``[B]`` in [0, 1]."""
        self._keys = torch.zeros(num_sessions, dtype=torch.int64, device=device)
        self.hidden_size = 2 * size + population.num_topics + 3

    def reset(self, keys: Tensor, where: Tensor | None = None) -> None:
        """Begin new episodes; see :meth:`marec_env.users.base.Users.reset`."""
        if where is None:
            rows = torch.arange(self.num_sessions, device=self.device)
        else:
            rows = where.nonzero().squeeze(1)
            if rows.numel() == 0:
                return
        keys = keys[rows]
        draw = random.uniform(keys, 0, "users/reset", _RESET_LANES)
        users = pick(draw[:, _USER], self.population.num_users)
        config = self.config
        self._keys[rows] = keys
        self.user_index[rows] = users
        self.is_new[rows] = draw[:, _NEW] < config.new_user_share
        self.request_index[rows] = 0
        bored = draw[:, _BORED] < config.boredom.susceptible_share
        self.susceptibility[rows] = config.boredom.weight * bored
        self.satisfaction[rows] = config.satisfaction.initial
        self._boredom.reset(rows)
        self._patience.reset(rows)
        self._intent.reset(rows, users, draw[:, _INTENT])
        self._taste[rows] = self.population.user_factors[users]
        self._refresh(rows)

    def _refresh(self, rows: Tensor) -> None:
        """Recompute the present interest of ``rows``."""
        self._interest[rows, :-1] = self._intent.interest(self._taste[rows], rows)

    def respond(self, slate: Tensor) -> Feedback:
        """Show ``slate``; see :meth:`marec_env.users.base.Users.respond`."""
        size = slate.shape[1]
        draws = request_draws(self._keys, self.request_index, size, self._behaviours.extra)
        topics = self.population.topics[slate]
        logits = self._logits(slate, topics)
        relevance = torch.sigmoid(logits)
        examined = self._examination.probability(size)
        clicks = (draws.choice < relevance * examined).to(torch.float32)
        behaviours = self._behaviours.respond(clicks, logits, draws.behaviours)
        engagement = clicks.mean(1)

        self._boredom.update(topics)
        enjoyment = relevance @ (examined / examined.sum().clamp(min=1e-6))
        self.satisfaction.lerp_(enjoyment, 1.0 - self.config.satisfaction.memory)
        left = self._patience.update(engagement, draws.scalars[:, LEAVE])
        changed = self._intent.update(
            self.user_index, draws.scalars[:, INTENT_SWITCH], draws.scalars[:, INTENT_PICK]
        )
        self._refresh(changed)
        self.request_index += 1
        return Feedback(behaviours, engagement, self.satisfaction.clone(), left)

    def _logits(self, items: Tensor, topics: Tensor) -> Tensor:
        """Return the click logits of int64 ``[B, M]`` items now, boredom included."""
        table = embedding(items, self._items)
        logits = torch.bmm(table, self._interest.unsqueeze(2)).squeeze(2)
        return logits.sub_(self._boredom.level(topics).mul_(self.susceptibility.unsqueeze(1)))

    def click_probability(self, items: Tensor | None = None) -> Tensor:
        """See :meth:`marec_env.users.base.Users.click_probability`."""
        if items is not None:
            return torch.sigmoid(self._logits(items, self.population.topics[items]))
        logits = self._interest @ self._items.T
        loss = self._boredom.level().mul_(self.susceptibility.unsqueeze(1))
        return logits.sub_(loss.index_select(1, self.population.topics)).sigmoid_()

    def long_term_relevance(self, items: Tensor | None = None) -> Tensor:
        """See :meth:`marec_env.users.base.Users.long_term_relevance`."""
        factors, offset = self._items[:, :-1], self._items[:, -1]
        if items is None:
            return self._taste @ factors.T + offset
        shown = embedding(items, self._items)
        return (shown[..., :-1] @ self._taste.unsqueeze(2)).squeeze(2) + shown[..., -1]

    def hidden_state(self) -> Tensor:
        """Return taste, intent, boredom by topic, susceptibility, patience and satisfaction."""
        weight = max(self.config.boredom.weight, 1e-6)
        return torch.cat(
            [
                self._taste,
                self._intent.direction(),
                self._boredom.level(),
                (self.susceptibility / weight).unsqueeze(1),
                self._patience.scaled().unsqueeze(1),
                self.satisfaction.unsqueeze(1),
            ],
            dim=1,
        )

    def _state(self) -> dict[str, Tensor]:
        """Return the live tensors that make up the state."""
        return {
            "keys": self._keys,
            "user_index": self.user_index,
            "is_new": self.is_new,
            "request_index": self.request_index,
            "susceptibility": self.susceptibility,
            "satisfaction": self.satisfaction,
            "taste": self._taste,
            "interest": self._interest,
            "intent": self._intent.item,
            "exposure": self._boredom.exposure,
            "patience": self._patience.left,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return copies of everything needed to continue exactly."""
        return {name: value.clone() for name, value in self._state().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        for name, value in self._state().items():
            value.copy_(state[name])
