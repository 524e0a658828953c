"""KuaiSim's request, session and cross-session levels (Zhao et al., NeurIPS 2023 Datasets).

Seven behaviours per item, each Bernoulli with

    p_b = max(0, sigmoid(r + o_b) - weight * similarity),   r = scale (u . x) + quality + intercept

where ``similarity`` is the item's mean similarity to the slate (itself included). The published
response model is a network trained on KuaiRand; ours is linear in the true factors, with offsets
``o_b`` that set the behaviours' order of magnitude against the click. The reward of an item is the
sum of its behaviours, ``hate`` counting -1. Leaving:

* request: temper falls by 1 a request, whatever is shown;
* session: ``temper += clip(mean reward - 2, -2, 0)``; the user leaves below 1;
* cross_session: after every 5 requests the user returns on a day geometric with
  ``P = clip(bias_user + 0.1 mean reward + 0.4, 0, 1)``, at most 10 days; 6 sessions.

Two defects of the published code, reproduced on request: it applies the sigmoid to what are
probabilities already, so every one of them lies in 0.50-0.73, and users reward anything; and it
divides the similarity by the number of factors, which leaves next to no diversity penalty.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from marec_env.catalog.population import Population
from marec_env.classic.config import KuaiSimConfig
from marec_env.config.loader import load_mapping
from marec_env.users import base as lane
from marec_env.users.base import Feedback, Users
from marec_env.users.config import UsersConfig
from marec_env.users.dynamics import geometric_days
from marec_env.vector import Rows

__all__ = ["KuaiSimUsers"]

BEHAVIOURS = ("click", "long_view", "like", "comment", "forward", "follow", "hate")
OFFSETS = (0.0, -0.5, -3.5, -5.5, -6.5, -6.5, -8.0)
"""Logits against the click; our choice of order of magnitude."""
WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -1.0)
"""Reward of each behaviour, as published."""


class KuaiSimUsers(Users):
    """Users with a temper, several behaviours, and a return day."""

    behaviours: tuple[str, ...] = BEHAVIOURS

    def __init__(
        self, config: UsersConfig, population: Population, num_sessions: int, device: torch.device
    ) -> None:
        """See :class:`marec_env.users.base.Users`."""
        super().__init__(config, population, num_sessions, device)
        self._own = load_mapping(config.settings, KuaiSimConfig, "users.settings")
        self._offsets = torch.tensor(OFFSETS, device=device)
        self._weights = torch.tensor(WEIGHTS, device=device)
        self._directions = normalize(population.item_factors, dim=1)
        size = population.user_factors.shape[1]
        self._taste = torch.zeros(num_sessions, size, device=device)
        self.temper = torch.zeros(num_sessions, device=device)
        """Float32 ``[B]``."""
        self.sessions = torch.zeros(num_sessions, dtype=torch.int64, device=device)
        """Int64 ``[B]``: sessions ended so far."""
        self.satisfaction = torch.zeros(num_sessions, device=device)
        """Float32 ``[B]`` in [0, 1]: running mean of the reward over the tolerance."""
        self._reward = torch.zeros(num_sessions, device=device)  # summed over the session
        self._bias = torch.zeros(num_sessions, device=device)
        self.hidden_size = size + 3

    def _begin(self, rows: Rows, users: Tensor, draw: Tensor) -> None:
        rows.put(self._taste, self.population.user_factors[users])
        rows.put(self.temper, self._own.temper)
        rows.put(self.sessions, 0)
        rows.put(self.satisfaction, self.config.satisfaction.initial)
        rows.put(self._reward, 0.0)
        rows.put(self._bias, self._own.return_spread * (2.0 * draw[:, 0] - 1.0))

    def _logits(self, items: Tensor | None) -> Tensor:
        people, relevance = self.population, self.config.relevance
        quality = people.quality if items is None else people.quality[items]
        scale = people.scale * relevance.scale_factor
        offset = people.intercept + relevance.intercept_shift
        return scale * self._score(self._taste, items) + quality + offset

    def _probability(self, logits: Tensor) -> Tensor:
        """Return the behaviours' probabilities before the penalty, ``[..., 7]``."""
        found = torch.sigmoid(logits.unsqueeze(-1) + self._offsets)
        return torch.sigmoid(found) if self._own.probability == "double_sigmoid" else found

    def similarity(self, slate: Tensor) -> Tensor:
        """Return each item's mean similarity to its slate, float32 ``[B, K]``."""
        shown = self._directions[slate]
        found = torch.bmm(shown, shown.mean(1).unsqueeze(2)).squeeze(2)
        return found / shown.shape[2] if self._own.similarity == "mean_over_factors" else found

    def respond(self, slate: Tensor) -> Feedback:
        """Show ``slate``; see :meth:`marec_env.users.base.Users.respond`."""
        own, size = self._own, slate.shape[1]
        draws = lane.request_draws(self._keys, self.request_index, size, len(BEHAVIOURS) - 1)
        uniform = torch.cat([draws.choice, draws.behaviours], dim=1)
        penalty = own.diversity_weight * self.similarity(slate)
        chance = self._probability(self._logits(slate)) - penalty.unsqueeze(2)
        happened = uniform.reshape(-1, len(BEHAVIOURS), size).transpose(1, 2) < chance
        happened = happened.to(torch.float32)
        reward = (happened @ self._weights).mean(1)

        self.request_index += 1
        self._reward += reward
        level = (reward / own.tolerance).clamp(0.0, 1.0)
        memory = self.config.satisfaction.memory
        self.satisfaction.copy_(torch.lerp(level, self.satisfaction, memory))
        left, gap = self._leave(reward, draws.scalars[:, lane.RETURN])
        behaviours = {name: happened[..., place] for place, name in enumerate(BEHAVIOURS)}
        engagement = (reward / self._weights.clamp(min=0).sum()).clamp(0.0, 1.0)
        return Feedback(behaviours, engagement, self.satisfaction.clone(), left, gap)

    def _leave(self, reward: Tensor, draw: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return who leaves for good and the return gaps (cross_session), after one request."""
        own = self._own
        if own.level == "request":
            self.temper -= 1.0
            return self.temper < own.leave_below, None
        if own.level == "session":
            self.temper += (reward - own.tolerance).clamp(-own.tolerance, 0.0)
            return self.temper < own.leave_below, None
        ended = self.request_index % own.requests == 0
        self.sessions += ended
        mean = self._reward / own.requests
        chance = (self._bias + own.return_slope * mean + own.return_base).clamp(0.0, 1.0)
        days = geometric_days(chance, draw).clamp(max=own.max_gap)
        left = ended & (self.sessions >= own.sessions)
        self._reward.masked_fill_(ended, 0.0)
        return left, torch.where(ended & ~left, days, 0.0)

    def click_probability(self, items: Tensor | None = None) -> Tensor:
        """Return the click probability before the similarity penalty of a slate."""
        return self._probability(self._logits(items))[..., 0]

    def expected_reward(self) -> Tensor:
        """Return the reward each item would bring now, penalty aside, float32 ``[B, N]``."""
        return self._probability(self._logits(None)) @ self._weights

    def plan_slate(self, offer: Tensor, slate_size: int) -> Tensor:
        """Return a slate built greedily on reward less the similarity penalty it brings about.

        Adding an item lowers each of the slate's items by the similarity of the two, and both ways,
        over the slate's size.

        Args:
            offer: int64 ``[B, C]``, items to choose from.
            slate_size: K.

        Returns:
            Int64 ``[B, K]``.
        """
        value = self.expected_reward().gather(1, offer)
        directions = self._directions[offer]
        shrink = directions.shape[2] if self._own.similarity == "mean_over_factors" else 1
        price = 2.0 * self._own.diversity_weight * float(self._weights.sum()) / slate_size / shrink
        places = []
        for _ in range(slate_size):
            place = value.argmax(1, keepdim=True)
            places.append(place)
            chosen = directions.gather(1, place.unsqueeze(2).expand(-1, -1, directions.shape[2]))
            value = value - price * torch.bmm(directions, chosen.transpose(1, 2)).squeeze(2)
            value = value.scatter(1, place, -torch.inf)
        return offer.gather(1, torch.cat(places, dim=1))

    def long_term_relevance(
        self, items: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """Return the click logit; tastes do not move within an episode."""
        if rows is None:
            return self._logits(items)
        people, relevance = self.population, self.config.relevance
        quality = people.quality if items is None else people.quality[items]
        score = self._score(self._taste[rows], items) * (people.scale * relevance.scale_factor)
        return score + quality + (people.intercept + relevance.intercept_shift)

    def hidden_state(self) -> Tensor:
        """Return taste, temper over its first value, sessions over their number, satisfaction."""
        rest = [
            (self.temper / self._own.temper).clamp(-1.0, 1.0),
            self.sessions / self._own.sessions,
            self.satisfaction,
        ]
        return torch.cat([self._taste, torch.stack(rest, dim=1)], dim=1)

    def _model_state(self) -> dict[str, Tensor]:
        return {
            "taste": self._taste,
            "temper": self.temper,
            "sessions": self.sessions,
            "satisfaction": self.satisfaction,
            "reward": self._reward,
            "bias": self._bias,
        }
