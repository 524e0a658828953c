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

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from marec_env.catalog.population import Population
from marec_env.config import ConfigModel
from marec_env.config.loader import load_mapping
from marec_env.users import base as lane
from marec_env.users.base import Feedback, Users
from marec_env.users.config import UsersConfig
from marec_env.users.dynamics import geometric_days
from marec_env.vector import Rows

BEHAVIOURS = ("click", "long_view", "like", "comment", "forward", "follow", "hate")
OFFSETS = (0.0, -0.5, -3.5, -5.5, -6.5, -6.5, -8.0)
"""Logits against the click; our choice of order of magnitude."""
WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -1.0)
"""Reward of each behaviour, as published; so are the numbers below."""
DIVERSITY_WEIGHT = 0.2
"""Probability lost at full similarity to the slate."""
TEMPER, LEAVE_BELOW = 20.0, 1.0
"""Temper at first, and the temper below which a user leaves."""
TOLERANCE = 2.0
"""Mean reward an item at which temper stays level."""
REQUESTS, SESSIONS = 5, 6
"""Requests a session and sessions an episode of the level ``cross_session``."""
RETURN_BASE, RETURN_SLOPE, RETURN_SPREAD, MAX_GAP = 0.4, 0.1, 0.1, 10
"""The daily return probability without reward, what a unit of mean reward adds, by how much users
differ in it, and the longest gap in days."""


class KuaiSimConfig(ConfigModel):
    """The level, and the published code's defects."""

    level: Literal["request", "session", "cross_session"] = Field(
        default="session",
        description="request: temper falls by 1 a request; session: by the shortfall of the "
        "reward; cross_session: sessions of fixed length, and a return day after each",
    )
    probability: Literal["sigmoid", "double_sigmoid"] = Field(
        default="sigmoid",
        description="double_sigmoid is the published code's: every probability lies in 0.50-0.73",
    )
    similarity: Literal["cosine", "mean_over_factors"] = Field(
        default="cosine",
        description="mean_over_factors is the published code's: a cosine over the number of "
        "factors, which leaves almost no penalty",
    )


class KuaiSimUsers(Users):
    """Users with a temper, several behaviours, and a return day."""

    behaviours: tuple[str, ...] = BEHAVIOURS

    def _build(self, config: UsersConfig, population: Population) -> None:
        self._own = load_mapping(config.settings, KuaiSimConfig, "users.settings")
        self._offsets = torch.tensor(OFFSETS, device=self.device)
        self._weights = torch.tensor(WEIGHTS, device=self.device)
        self._directions = normalize(population.item_factors, dim=1)
        size = population.user_factors.shape[1]
        self._taste = self._keep("taste", 0.0, size)
        self.temper = self._keep("temper", TEMPER)
        """Float32 ``[B]``."""
        self.sessions = self._keep("sessions", 0, dtype=torch.int64)
        """Int64 ``[B]``: sessions ended so far."""
        self.satisfaction = self._keep("satisfaction", config.satisfaction.initial)
        """Float32 ``[B]`` in [0, 1]: running mean of the reward over the tolerance."""
        self._reward = self._keep("reward", 0.0)  # summed over the session
        self._bias = self._keep("bias", 0.0)
        self.hidden_size = size + 3

    def _begin(self, rows: Rows, users: Tensor, draw: Tensor) -> None:
        rows.put(self._taste, self.population.user_factors[users])
        rows.put(self._bias, RETURN_SPREAD * (2.0 * draw[:, 0] - 1.0))

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
        size = slate.shape[1]
        draws = lane.request_draws(self._keys, self.request_index, size, len(BEHAVIOURS) - 1)
        uniform = torch.cat([draws.choice, draws.behaviours], dim=1)
        penalty = DIVERSITY_WEIGHT * self.similarity(slate)
        chance = self._probability(self.long_term_relevance(slate)) - penalty.unsqueeze(2)
        happened = uniform.reshape(-1, len(BEHAVIOURS), size).transpose(1, 2) < chance
        happened = happened.to(torch.float32)
        reward = (happened @ self._weights).mean(1)

        self.request_index += 1
        self._reward += reward
        level = (reward / TOLERANCE).clamp(0.0, 1.0)
        memory = self.config.satisfaction.memory
        self.satisfaction.copy_(torch.lerp(level, self.satisfaction, memory))
        left, gap = self._leave(reward, draws.scalars[:, lane.RETURN])
        behaviours = {name: happened[..., place] for place, name in enumerate(BEHAVIOURS)}
        engagement = (reward / self._weights.clamp(min=0).sum()).clamp(0.0, 1.0)
        return Feedback(behaviours, engagement, self.satisfaction.clone(), left, gap)

    def _leave(self, reward: Tensor, draw: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return who leaves for good and the return gaps (cross_session), after one request."""
        if self._own.level != "cross_session":
            shortfall = (reward - TOLERANCE).clamp(-TOLERANCE, 0.0)
            self.temper += shortfall if self._own.level == "session" else -1.0
            return self.temper < LEAVE_BELOW, None
        ended = self.request_index % REQUESTS == 0
        self.sessions += ended
        chance = (self._bias + RETURN_SLOPE * (self._reward / REQUESTS) + RETURN_BASE).clamp(0, 1)
        days = geometric_days(chance, draw).clamp(max=MAX_GAP)
        left = ended & (self.sessions >= SESSIONS)
        self._reward.masked_fill_(ended, 0.0)
        return left, torch.where(ended & ~left, days, 0.0)

    def click_probability(self, items: Tensor | None = None) -> Tensor:
        """Return the click probability before the similarity penalty of a slate."""
        return self._probability(self.long_term_relevance(items))[..., 0]

    def expected_reward(self) -> Tensor:
        """Return the reward each item would bring now, penalty aside, float32 ``[B, N]``."""
        return self._probability(self.long_term_relevance()) @ self._weights

    def plan_slate(self, offer: Tensor, slate_size: int) -> Tensor:
        """Return a slate built greedily on reward less the similarity penalty it brings about.

        Adding an item lowers each of the slate's items by the similarity of the two, and both ways,
        over the slate's size. Int64 ``[B, K]`` of the items int64 ``[B, C]`` on offer.
        """
        value = self.expected_reward().gather(1, offer)
        directions = self._directions[offer]
        shrink = directions.shape[2] if self._own.similarity == "mean_over_factors" else 1
        price = 2.0 * DIVERSITY_WEIGHT * float(self._weights.sum()) / slate_size / shrink
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
        people, relevance = self.population, self.config.relevance
        quality = people.quality if items is None else people.quality[items]
        scale = people.scale * relevance.scale_factor
        offset = people.intercept + relevance.intercept_shift
        taste = self._taste if rows is None else self._taste[rows]
        return scale * self._score(taste, items) + quality + offset

    def hidden_state(self) -> Tensor:
        """Return taste, temper over its first value, sessions over their number, satisfaction."""
        rest = [
            (self.temper / TEMPER).clamp(-1.0, 1.0),
            self.sessions / SESSIONS,
            self.satisfaction,
        ]
        return torch.cat([self._taste, torch.stack(rest, dim=1)], dim=1)
