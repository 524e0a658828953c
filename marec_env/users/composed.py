"""Users composed of modules by configuration; with the default configuration, the preset ``marec``.

Within a request, in this order: the interest of the moment gives each shown item a logit, boredom
lowers it, examination and choice turn it into clicks, behaviours follow; then satisfaction,
patience, exposure, taste, intent and supply move on. What :meth:`ComposedUsers.click_probability`
says between two requests is therefore exactly what the next response draws from.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.catalog.population import Population
from marec_env.users import base as lane
from marec_env.users.base import BatchedUsers, Feedback
from marec_env.users.behaviours import Behaviours, Shown
from marec_env.users.boredom import ClickBoredom, ExposureBoredom
from marec_env.users.config import ClickBoredomConfig, ContinuousBoredom, UsersConfig
from marec_env.users.dynamics import Drift, Returning, Supply
from marec_env.users.effects import Effects
from marec_env.users.modules import Choice, Examination, Intent, Patience, Relevance

__all__ = ["ComposedUsers"]

_BORED, _INTENT = range(2)  # columns of the numbers drawn at a reset
_LEAST = 1e-6  # keeps a quotient finite where its divisor may be zero


class ComposedUsers(BatchedUsers):
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
        super().__init__(config, population, num_sessions, device)
        size = population.user_factors.shape[1]
        boredom = config.boredom
        self._full_boredom = boredom.weight if isinstance(boredom, ContinuousBoredom) else 1.0

        self._relevance = Relevance(config.relevance, population)
        self._examination = Examination(config.examination, device)
        self._choice = Choice(config.choice)
        effects = Effects(config, num_sessions, population, device)
        self._effects = effects if effects.any else None
        self._behaviours = Behaviours(config.behaviours, population, effects.price)
        self._behaviours.centre(
            population,
            self._choice,
            config.relevance.scale_factor,
            config.relevance.intercept_shift,
        )
        self.behaviours = self._behaviours.names
        self._patience = (
            Patience(config.patience, num_sessions, device)
            if config.patience.kind != "none"
            else None
        )
        self._drift = Drift(config.drift, population.item_factors)
        self._drifts = config.drift.kind != "none"
        self._intent = (
            Intent(config.intent, num_sessions, population) if config.intent.weight > 0 else None
        )
        self._exposure = (
            ExposureBoredom(boredom, num_sessions, population.topics, population.num_topics)
            if isinstance(boredom, ContinuousBoredom)
            else None
        )
        self._fatigue = (
            ClickBoredom(boredom, num_sessions, population.num_topics, size, device)
            if isinstance(boredom, ClickBoredomConfig)
            else None
        )
        self._returning = (
            Returning(config.returning, num_sessions, device)
            if config.returning.sessions > 1 or config.returning.requests
            else None
        )
        self.supply = (
            Supply(config.supply, num_sessions, population) if config.supply.enabled else None
        )

        self.susceptibility = torch.zeros(num_sessions, device=device)
        """Float32 ``[B]``: logits lost at full boredom; 0 for users who never get bored."""
        self.satisfaction = torch.zeros(num_sessions, device=device)
        """Float32 ``[B]`` in [0, 1]."""
        self._taste = torch.ones(num_sessions, size + 1, device=device)
        self._interest = torch.ones(num_sessions, size + 1, device=device)
        self.hidden_size = self.hidden_state().shape[1]

    @property
    def taste(self) -> Tensor:
        """Float32 ``[B, d]``: the users' lasting taste now. Privileged."""
        return self._taste[:, :-1]

    def _begin(self, rows: Tensor, users: Tensor, draw: Tensor) -> None:
        config = self.config
        if config.boredom.kind != "none":
            bored = draw[:, _BORED] < config.boredom.susceptible_share
            self.susceptibility[rows] = self._full_boredom * bored
        self.satisfaction[rows] = config.satisfaction.initial
        self._taste[rows, :-1] = self.population.user_factors[users]
        if self._intent is not None:
            self._intent.reset(rows, users, draw[:, _INTENT])
        for module in (
            self._patience,
            self._exposure,
            self._fatigue,
            self._returning,
            self.supply,
        ):
            if module is not None:
                module.reset(rows)
        if self._effects is not None:
            self._effects.reset(rows, users, self._keys[rows])
        self._refresh(rows)

    def _refresh(self, rows: Tensor | None = None) -> None:
        """Recompute the present interest, of all sessions or of ``rows``."""
        interest = self.taste if rows is None else self.taste[rows]
        if self._intent is not None:
            interest = self._intent.interest(interest, rows)
        if self._fatigue is not None:
            interest = self._fatigue.gate(interest, rows)
        if rows is None:
            self._interest[:, :-1] = interest
        else:
            self._interest[rows, :-1] = interest

    def respond(self, slate: Tensor) -> Feedback:
        """Show ``slate``; see :meth:`marec_env.users.base.Users.respond`."""
        size = slate.shape[1]
        step = self.request_index
        draws = lane.request_draws(self._keys, step, size, self._behaviours.extra)
        topics = self.population.topics[slate]
        logits = self._logits(slate, topics)
        examined = self._examination.draw(size, draws.one(lane.EXAMINE))
        clicks = self._choice.clicks(logits, examined, draws.choice, draws.one(lane.CHOICE))
        clicks = self._examination.stop(clicks, draws.one(lane.STOP))
        if self.supply is not None:
            clicks = clicks * self.supply.available(slate)
        shown = Shown(slate, self.user_index, self._keys, step, logits)
        behaviours = self._behaviours.respond(clicks, shown, draws.behaviours)
        engagement = clicks.mean(1)

        self._enjoy(slate, logits)
        if self._patience is None:
            left = torch.zeros_like(engagement, dtype=torch.bool)
        else:
            left = self._patience.update(engagement, draws.scalars[:, lane.LEAVE])
        if self._exposure is not None:
            self._exposure.update(topics)
        if self._fatigue is not None:
            self._fatigue.update(topics, clicks, step, self.susceptibility > 0)
        if self._effects is not None:
            self._effects.update(slate, behaviours, self.user_index, self._keys, step)
        if self._drifts:
            self._taste[:, :-1] = self._drift.move(self.taste, slate, clicks, self._keys, step)
        changed = None
        if self._intent is not None:
            changed = self._intent.update(
                self.user_index,
                draws.scalars[:, lane.INTENT_SWITCH],
                draws.scalars[:, lane.INTENT_PICK],
            )
        if self.supply is not None:
            arrive = draws.scalars[:, lane.ARRIVE]
            self.supply.update(slate, clicks, step, arrive, draws.one(lane.PROVIDER))
        gap = None
        if self._returning is not None:
            left, gap = self._come_back(left, draws)
        if self._drifts or self._fatigue is not None or gap is not None:
            self._refresh()
        elif changed is not None:
            self._refresh(changed)
        self.request_index = step + 1
        outcomes = self._behaviours.outcomes(shown)
        return Feedback(behaviours, engagement, self.satisfaction.clone(), left, gap, outcomes)

    def _logits(self, items: Tensor, topics: Tensor) -> Tensor:
        """Return the click logits of int64 ``[B, M]`` items now, boredom and age included."""
        logits = self._relevance.logits(self._interest, items)
        if self._exposure is not None:
            level = self._exposure.level(topics)
            logits = logits.sub_(level.mul_(self.susceptibility.unsqueeze(1)))
        if self.supply is not None:
            logits = logits - self.supply.penalty(items, self.request_index)
        if self._effects is not None:
            logits = self._effects.apply(logits, items, self.user_index)
        return logits

    def _enjoy(self, slate: Tensor, logits: Tensor) -> None:
        """Move satisfaction towards the examination-weighted mean of the slate's appeal."""
        config = self.config.satisfaction
        appeal = self._choice.alone(logits)
        if config.lasting > 0:
            lasting = self._choice.alone(self._relevance.logits(self._taste, slate))
            appeal = torch.lerp(appeal, lasting, config.lasting)
        examined = self._examination.probability(slate.shape[1])
        enjoyment = appeal @ (examined / examined.sum().clamp(min=_LEAST))
        self.satisfaction.lerp_(enjoyment, 1.0 - config.memory).clamp_(0.0, 1.0)

    def _come_back(self, ended: Tensor, draws: lane.Draws) -> tuple[Tensor, Tensor]:
        """Let users whose session ended return or not; return who left for good, and the gaps."""
        assert self._returning is not None
        left, gap = self._returning.update(ended, self.satisfaction, draws.scalars[:, lane.RETURN])
        rows = (gap > 0).nonzero().squeeze(1)
        if self._patience is not None:
            self._patience.reset(rows)
        rested = gap[rows] * self.config.returning.recovery
        if self._exposure is not None:
            self._exposure.recover(rows, rested)
        if self._fatigue is not None:
            self._fatigue.recover(rows, rested)
        if self._intent is not None:
            self._intent.reset(rows, self.user_index[rows], draws.scalars[rows, lane.INTENT_PICK])
        return left, gap

    def click_probability(self, items: Tensor | None = None) -> Tensor:
        """See :meth:`marec_env.users.base.Users.click_probability`."""
        if items is None and (self.supply is not None or self._effects is not None):
            items = torch.arange(self.num_items, device=self.device).expand(self.num_sessions, -1)
        if items is not None:
            found = self._choice.alone(self._logits(items, self.population.topics[items]))
            return found if self.supply is None else found * self.supply.available(items)
        logits = self._relevance.logits(self._interest)
        if self._exposure is not None:
            loss = self._exposure.level().mul_(self.susceptibility.unsqueeze(1))
            logits.sub_(loss.index_select(1, self.population.topics))
        return self._choice.alone(logits)

    def long_term_relevance(
        self, items: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """See :meth:`marec_env.users.base.Users.long_term_relevance`."""
        taste = self._taste if rows is None else self._taste[rows]
        logits = self._relevance.logits(taste, items)
        price = None if self._effects is None else self._effects.price
        if price is None:
            return logits
        users = self.user_index if rows is None else self.user_index[rows]
        if items is None:
            items = torch.arange(self.num_items, device=self.device).expand(len(users), -1)
        return logits - price.loss(items, users)

    def topic_room(self, slate_size: int) -> Tensor:
        """Return how many items of each topic the next slate may hold without boring the user,
        int64 ``[B, T]``; ``slate_size`` where a user never gets bored. Privileged, for oracles.
        """
        shape = (self.num_sessions, self.population.num_topics)
        free = torch.full(shape, slate_size, dtype=torch.int64, device=self.device)
        if self._exposure is not None:
            room = self._exposure.room(slate_size)
        elif self._fatigue is not None:
            room = self._fatigue.room(self.request_index)
        else:
            return free
        return torch.where((self.susceptibility > 0).unsqueeze(1), room, free)

    def boredom_ahead(self, slate_size: int, requests: Tensor) -> Tensor | None:
        """Return the logits that boredom will take if every slate from now on holds 0 ... K items
        of a topic, float32 ``[B, T, K + 1, H]``; ``None`` where exposure bores nobody. Privileged.

        Args:
            slate_size: K.
            requests: float32 ``[H]``, requests ahead.
        """
        if self._exposure is None:
            return None
        counts = torch.arange(slate_size + 1, dtype=torch.float32, device=self.device)
        level = self._exposure.ahead(counts, slate_size, requests)
        return level * self.susceptibility[:, None, None, None]

    def fresh_logits(self, items: Tensor) -> Tensor:
        """Return the click logits of int64 ``[B, M]`` items were no topic boring. Privileged."""
        logits = self._logits(items, self.population.topics[items])
        if self._exposure is None:
            return logits
        level = self._exposure.level(self.population.topics[items])
        return logits + level * self.susceptibility.unsqueeze(1)

    def hidden_state(self) -> Tensor:
        """Return taste, then, where there is such a module: intent, boredom by topic, patience,
        sessions and trust, providers' presence, their wear-out, tiredness, price level; then
        susceptibility and satisfaction. Friends' endorsements, a number an item, are left out.
        """
        parts = [self.taste]
        if self._intent is not None:
            parts.append(self._intent.direction())
        for boredom in (self._exposure, self._fatigue):
            if boredom is not None:
                parts.append(boredom.level())
        if self._patience is not None:
            parts.append(self._patience.scaled().unsqueeze(1))
        if self._returning is not None:
            parts.append(self._returning.scaled())
        if self.supply is not None:
            parts.append(self.supply.present.to(torch.float32))
        if self._effects is not None:
            parts += self._effects.hidden(self.user_index)
        weight = max(self._full_boredom, _LEAST)
        parts += [(self.susceptibility / weight).unsqueeze(1), self.satisfaction.unsqueeze(1)]
        return torch.cat(parts, dim=1)

    def _model_state(self) -> dict[str, Tensor]:
        found = {
            "susceptibility": self.susceptibility,
            "satisfaction": self.satisfaction,
            "taste": self._taste,
            "interest": self._interest,
        }
        modules = {
            "intent": self._intent,
            "exposure": self._exposure,
            "fatigue": self._fatigue,
            "patience": self._patience,
            "returning": self._returning,
            "supply": self.supply,
            "effects": self._effects,
        }
        for name, module in modules.items():
            if module is not None:
                found |= {f"{name}/{key}": value for key, value in module.state().items()}
        return found
