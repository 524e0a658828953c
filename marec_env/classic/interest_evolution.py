"""RecSim's interest evolution (Ie et al., "RecSim", 2019; Ie et al., "SlateQ", IJCAI 2019).

Items carry one topic (one-hot ``x``) and a quality ``q``; a user has interests ``u`` in [-1, 1] and
a time budget ``b``. One request:

    choice   P(k) = w_k / (sum_j w_j + w_0),  w_k = u . x_k - m,  w_0 = c - m   (m = -1, c = 1)
    click    watch = min(b, 4);  b <- b - watch + gain * watch * q,  gain = 0.9 / 3.4
    no click b <- b - 0.5
    interest u <- clip(u +- a x (x - u), -1, 1),  a = 0.3 (1 - |u|),  + with P = x . (u + 1) / 2

The episode ends at ``b <= 0``. The reward is the minutes watched.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.catalog.population import Population
from marec_env.config import ConfigModel
from marec_env.config.loader import load_mapping
from marec_env.users import base as lane
from marec_env.users.base import Feedback, Users
from marec_env.users.config import ProportionalChoice, UsersConfig
from marec_env.users.modules import Choice
from marec_env.vector import Rows

# As published, in minutes where they are times.
BUDGET, LENGTH = 200.0, 4.0
"""The time budget at first, and the length of every item."""
NO_CLICK, MIN_SCORE = 1.0, -1.0
"""The score of clicking nothing, and what is subtracted from all scores before choosing."""
QUALITY_GAIN = 0.9 / 3.4
"""Budget won by a minute watched and unit of quality."""
NO_CLICK_COST = 0.5
"""Budget lost by a slate without a click."""
STEP = 0.3
"""Step of an interest of 0 at a click on its topic."""
_QUALITY_SPAN = 6.8  # qualities lie within +-3.4: means in [-3, 3], four standard deviations of 0.1


class InterestEvolutionUsers(Users):
    """Users whose interests move with what they watch, within a time budget."""

    behaviours: tuple[str, ...] = ("click", "watch_time")

    def _build(self, config: UsersConfig, population: Population) -> None:
        """User factors are the interests at first, in [-1, 1]."""
        load_mapping(config.settings, ConfigModel, "users.settings")  # it has none
        self._choice = Choice(ProportionalChoice(no_click=NO_CLICK, min_score=MIN_SCORE))
        size = population.user_factors.shape[1]
        self.interest = self._keep("interest", 0.0, size)
        """Float32 ``[B, d]`` in [-1, 1]."""
        self.budget = self._keep("budget", BUDGET)
        """Float32 ``[B]``, minutes."""
        self.satisfaction = self._keep("satisfaction", config.satisfaction.initial)
        """Float32 ``[B]`` in [0, 1]: running mean of the quality watched, from [-3.4, 3.4]."""
        self.hidden_size = size + 2

    def _begin(self, rows: Rows, users: Tensor, draw: Tensor) -> None:
        rows.put(self.interest, self.population.user_factors[users])

    def respond(self, slate: Tensor) -> Feedback:
        """Show ``slate``; see :meth:`marec_env.users.base.Users.respond`."""
        size = slate.shape[1]
        draws = lane.request_draws(self._keys, self.request_index, size, 0)
        scores = self._score(self.interest, slate)
        examined = torch.ones(size, device=self.device)
        clicks = self._choice.clicks(scores, examined, draws.choice, draws.one(lane.CHOICE))
        any_click = clicks.any(1)
        item = slate.gather(1, clicks.argmax(1, keepdim=True)).squeeze(1)
        watch = torch.where(any_click, self.budget.clamp(max=LENGTH), 0.0)

        x = self.population.item_factors[item]
        towards = (x * (self.interest + 1.0)).sum(1) / 2.0
        sign = torch.where(draws.scalars[:, lane.INTENT_SWITCH] < towards, 1.0, -1.0)
        step = STEP * (1.0 - self.interest.abs()) * x * (x - self.interest)
        moved = (self.interest + sign.unsqueeze(1) * step).clamp_(-1.0, 1.0)
        self.interest.copy_(torch.where(any_click.unsqueeze(1), moved, self.interest))

        quality = self.population.quality[item]
        gained = QUALITY_GAIN * watch * quality - watch
        self.budget += torch.where(any_click, gained, -NO_CLICK_COST)
        contentment = (0.5 + quality / _QUALITY_SPAN).clamp_(0.0, 1.0)
        memory = self.config.satisfaction.memory
        content = torch.lerp(contentment, self.satisfaction, memory)
        self.satisfaction.copy_(torch.where(any_click, content, self.satisfaction))
        self.request_index += 1
        behaviours = {"click": clicks, "watch_time": clicks * watch.unsqueeze(1)}
        return Feedback(behaviours, watch / LENGTH, self.satisfaction.clone(), self.budget <= 0)

    def click_probability(self, items: Tensor | None = None) -> Tensor:
        """See :meth:`marec_env.users.base.Users.click_probability`."""
        return self._choice.alone(self._score(self.interest, items))

    def long_term_relevance(
        self, items: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """Return the score ``u . x``; this choice rule knows no logit."""
        return self._score(self.interest if rows is None else self.interest[rows], items)

    def long_term_value(self) -> Tensor:
        """Return, per item, its weight in the choice times the minutes that choosing it brings:
        a minute of budget is a minute watched later, so only quality counts. ``[B, N]``.
        """
        weight = self._score(self.interest, None) - MIN_SCORE
        return weight * (QUALITY_GAIN * LENGTH * self.population.quality + NO_CLICK_COST)

    def hidden_state(self) -> Tensor:
        """Return interests, budget over its first value (at most 1) and satisfaction."""
        left = (self.budget / BUDGET).clamp(-1.0, 1.0)
        return torch.cat([self.interest, left.unsqueeze(1), self.satisfaction.unsqueeze(1)], dim=1)
