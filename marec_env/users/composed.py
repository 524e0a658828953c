"""Users composed of modules by configuration; with the default configuration, the preset ``marec``.

Within a request, in this order: the interest of the moment gives each shown item a logit, boredom
lowers it, examination and choice turn it into clicks, behaviours follow; then satisfaction,
patience, exposure, taste, intent and supply move on. What :meth:`ComposedUsers.click_probability`
says between two requests is therefore exactly what the next response draws from.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from marec_env.catalog.population import Population
from marec_env.users import base as lane
from marec_env.users.base import Feedback, Module, Shown, Users
from marec_env.users.behaviours import Behaviours
from marec_env.users.config import ClickBoredomConfig, ContinuousBoredom, UsersConfig
from marec_env.users.dynamics import ClickBoredom, Drift, Returning, Supply
from marec_env.users.effects import Friends, PriceSense, Tiredness, WearOut
from marec_env.users.modules import (
    Choice,
    Examination,
    ExposureBoredom,
    Intent,
    Patience,
    Relevance,
)
from marec_env.vector import Rows

M = TypeVar("M", bound=Module)

_BORED, _INTENT = range(2)  # columns of the numbers drawn at a reset
_LEAST = 1e-6  # keeps a quotient finite where its divisor may be zero
_SEEN_BY_CRITICS = (  # in the order of the hidden state
    "intent",
    "exposure",
    "fatigue",
    "patience",
    "returning",
    "supply",
    "wear_out",
    "tiredness",
    "price",
)


def _configured(config: UsersConfig) -> dict[str, type[Module]]:
    """Return the modules that are switched on, in the order in which they move on."""
    returning = config.returning
    modules: dict[str, tuple[bool, type[Module]]] = {
        "patience": (config.patience.kind != "none", Patience),
        "exposure": (isinstance(config.boredom, ContinuousBoredom), ExposureBoredom),
        "supply": (config.supply.enabled, Supply),
        "price": (config.price.sensitivity > 0, PriceSense),
        "wear_out": (config.wear_out.weight > 0, WearOut),
        "tiredness": (config.tiredness.minutes > 0, Tiredness),
        "friends": (config.friends.influence > 0, Friends),
        "drift": (config.drift.kind != "none", Drift),
        "intent": (config.intent.weight > 0, Intent),
        "fatigue": (isinstance(config.boredom, ClickBoredomConfig), ClickBoredom),
        "returning": (returning.sessions > 1 or returning.requests > 0, Returning),
    }
    return {name: module for name, (wanted, module) in modules.items() if wanted}


class ComposedUsers(Users):
    """``B`` users of a population."""

    def __init__(
        self, config: UsersConfig, population: Population, num_sessions: int, device: torch.device
    ) -> None:
        """Args: see :class:`marec_env.users.base.Users`."""
        super().__init__(config, population, num_sessions, device)
        size = population.user_factors.shape[1]
        boredom = config.boredom
        self._full_boredom = boredom.weight if isinstance(boredom, ContinuousBoredom) else 1.0
        self.modules = {
            name: module(config, population, num_sessions)
            for name, module in _configured(config).items()
        }
        """By name, in the order in which they move on."""
        self._exposure = self._module(ExposureBoredom)
        self._boredom = self._exposure or self._module(ClickBoredom)
        self._price = self._module(PriceSense)
        self.supply = self._module(Supply)
        self._items_alike = not {"supply", "price", "wear_out", "tiredness", "friends"} & set(
            self.modules
        )  # a logit depends on no more than taste and boredom
        self._relevance = Relevance(config.relevance, population)
        self._examination = Examination(config.examination, device)
        self._choice = Choice(config.choice)
        self._behaviours = Behaviours(config.behaviours, population, self._price)
        self._behaviours.centre(config.relevance, population, self._choice)
        self.behaviours = self._behaviours.names

        self.susceptibility = torch.zeros(num_sessions, device=device)
        """Float32 ``[B]``: logits lost at full boredom; 0 for users who never get bored."""
        self.satisfaction = torch.zeros(num_sessions, device=device)
        """Float32 ``[B]`` in [0, 1]."""
        self._taste = torch.ones(num_sessions, size + 1, device=device)
        self._interest = torch.ones(num_sessions, size + 1, device=device)
        self.hidden_size = self.hidden_state().shape[1]

    def _module(self, kind: type[M]) -> M | None:
        return next((found for found in self.modules.values() if isinstance(found, kind)), None)

    @property
    def taste(self) -> Tensor:
        """Float32 ``[B, d]``: the users' lasting taste now. Privileged."""
        return self._taste[:, :-1]

    def _begin(self, rows: Rows, users: Tensor, draw: Tensor) -> None:
        config = self.config
        if config.boredom.kind != "none":
            bored = draw[:, _BORED] < config.boredom.susceptible_share
            rows.put(self.susceptibility, self._full_boredom * bored)
        rows.put(self.satisfaction, config.satisfaction.initial)
        rows.put(self.taste, self.population.user_factors[users])
        keys = rows.of(self._keys)
        for module in self.modules.values():
            module.reset(rows, users, keys, draw[:, _INTENT])
        self._refresh(rows)

    def _refresh(self, rows: Rows) -> None:
        """Recompute the interest of the moment."""
        interest = rows.of(self.taste)
        for module in self.modules.values():
            interest = module.interest(interest, rows)
        rows.put(self._interest[:, :-1], interest)

    def _shown(self, items: Tensor) -> Shown:
        """Return int64 ``[B, M]`` items with their click logits now."""
        shown = Shown(
            slate=items,
            topics=self.population.topics[items],
            users=self.user_index,
            keys=self._keys,
            step=self.request_index,
            taste=self.taste,
            susceptibility=self.susceptibility,
        )
        shown.logits = self._relevance.logits(self._interest, items)
        for module in self.modules.values():
            shown.logits = module.adjust(shown.logits, shown)
        return shown

    def respond(self, slate: Tensor) -> Feedback:
        """Show ``slate``; see :meth:`marec_env.users.base.Users.respond`."""
        size = slate.shape[1]
        draws = lane.request_draws(
            self._keys, self.request_index, size, len(self._behaviours.names) - 1
        )
        shown = self._shown(slate)
        shown.draws = draws
        examined = self._examination.draw(size, draws.one(lane.EXAMINE))
        clicks = self._choice.clicks(shown.logits, examined, draws.choice, draws.one(lane.CHOICE))
        clicks = self._examination.stop(clicks, draws.one(lane.STOP))
        if self.supply is not None:
            clicks = clicks * self.supply.available(slate)
        behaviours = self._behaviours.respond(clicks, shown, draws.behaviours)
        shown.engagement = clicks.mean(1)
        self._enjoy(shown)
        for module in self.modules.values():
            module.update(shown)
        if shown.gap is not None:
            rows, rested = Rows(shown.gap > 0), shown.gap * self.config.returning.recovery
            for module in self.modules.values():
                module.come_back(rows, rested, shown)
        if shown.changed is not None:
            self._refresh(shown.changed)
        self.request_index += 1
        left = shown.left
        if left is None:
            left = torch.zeros_like(self.is_new)
        return Feedback(
            behaviours,
            shown.engagement,
            self.satisfaction.clone(),
            left,
            shown.gap,
            self._behaviours.outcomes(shown),
        )

    def _enjoy(self, shown: Shown) -> None:
        """Move satisfaction towards the examination-weighted mean of the slate's appeal."""
        config = self.config.satisfaction
        appeal = self._choice.alone(shown.logits)
        if config.lasting > 0:
            lasting = self._choice.alone(self._relevance.logits(self._taste, shown.slate))
            appeal = torch.lerp(appeal, lasting, config.lasting)
        examined = self._examination.probability(shown.slate.shape[1])
        enjoyment = appeal @ (examined / examined.sum().clamp(min=_LEAST))
        self.satisfaction.lerp_(enjoyment, 1.0 - config.memory).clamp_(0.0, 1.0)
        shown.satisfaction = self.satisfaction

    def click_probability(self, items: Tensor | None = None) -> Tensor:
        """See :meth:`marec_env.users.base.Users.click_probability`."""
        if items is None and self._items_alike:
            logits = self._relevance.logits(self._interest)
            if self._exposure is not None:
                loss = self._exposure.level().mul_(self.susceptibility.unsqueeze(1))
                logits.sub_(loss.index_select(1, self.population.topics))
            return self._choice.alone(logits)
        if items is None:
            items = torch.arange(self.num_items, device=self.device).expand(self.num_sessions, -1)
        found = self._choice.alone(self._shown(items).logits)
        return found if self.supply is None else found * self.supply.available(items)

    def long_term_relevance(
        self, items: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """See :meth:`marec_env.users.base.Users.long_term_relevance`."""
        taste = self._taste if rows is None else self._taste[rows]
        return self._lasting(
            taste, self.user_index if rows is None else self.user_index[rows], items
        )

    def relevance_at_start(self, users: Tensor) -> Tensor:
        """See :meth:`marec_env.users.base.Users.relevance_at_start`."""
        return self._lasting(pad(self.population.user_factors[users], (0, 1), value=1.0), users)

    def _lasting(self, taste: Tensor, users: Tensor, items: Tensor | None = None) -> Tensor:
        logits = self._relevance.logits(taste, items)
        if self._price is None:
            return logits
        if items is None:
            items = torch.arange(self.num_items, device=self.device).expand(len(users), -1)
        return logits - self._price.loss(items, users)

    def topic_room(self, slate_size: int) -> Tensor:
        """Return how many items of each topic the next slate may hold without boring the user,
        int64 ``[B, T]``; ``slate_size`` where a user never gets bored. Privileged, for oracles.
        """
        shape = (self.num_sessions, self.population.num_topics)
        free = torch.full(shape, slate_size, dtype=torch.int64, device=self.device)
        if self._boredom is None:
            return free
        room = self._boredom.room(slate_size, self.request_index)
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
        shown = self._shown(items)
        if self._exposure is None:
            return shown.logits
        return shown.logits + self._exposure.level(shown.topics) * self.susceptibility.unsqueeze(1)

    def hidden_state(self) -> Tensor:
        """Return taste, then, where there is such a module: intent, boredom by topic, patience,
        sessions and trust, providers' presence, their wear-out, tiredness, price level; then
        susceptibility and satisfaction. Friends' endorsements, a number an item, are left out.
        """
        parts: list[Tensor | None] = [self.taste]
        for name in _SEEN_BY_CRITICS:
            if name in self.modules:
                parts.append(self.modules[name].hidden(self.user_index))
        weight = max(self._full_boredom, _LEAST)
        parts += [(self.susceptibility / weight).unsqueeze(1), self.satisfaction.unsqueeze(1)]
        return torch.cat([part for part in parts if part is not None], dim=1)

    def _model_state(self) -> dict[str, Tensor]:
        own = {
            "susceptibility": self.susceptibility,
            "satisfaction": self.satisfaction,
            "taste": self._taste,
            "interest": self._interest,
        }
        return own | {
            f"{name}/{key}": value
            for name, module in self.modules.items()
            for key, value in module.state().items()
        }
