"""What every batched user simulator offers: the one place where users and pipeline meet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from marec_env import random
from marec_env.catalog.population import Population
from marec_env.users.config import UsersConfig
from marec_env.vector import Rows

__all__ = [
    "USER_OUTCOMES",
    "Draws",
    "Feedback",
    "Module",
    "Rows",
    "SessionState",
    "Shown",
    "Users",
    "pick",
    "request_draws",
]

USER_OUTCOMES = {
    "likes": "items liked",
    "carts": "items put in the cart",
    "purchases": "items bought",
    "shares": "items passed on",
    "conversions": "advertisements that led to a sale",
    "revenue": "payments, and prices of purchases, in currency units",
    "watch_minutes": "minutes watched",
    "finished": "titles watched to the end",
    "holding_days": "trading days that purchases are held",
    "holding_return": "return of purchases in percent",
    "unsuitable": "items shown above the user's risk limit",
}
"""Names of :attr:`Feedback.outcomes`, each a sum over a slate, in the order in which reports show
them; a user model of one's own may add others."""


@dataclass(slots=True)
class Feedback:
    """The users' response to one slate each (``B`` sessions, ``K`` positions)."""

    behaviours: dict[str, Tensor]
    """Per behaviour, float32 ``[B, K]``: ``click`` always; 0/1 events (``like``, ``purchase``,
    ``hide``) or amounts with their unit in the name's documentation (``watch_time``)."""
    engagement: Tensor
    """Float32 ``[B]`` in [0, 1]: what the request was worth to the platform (by default the share
    of the slate clicked)."""
    satisfaction: Tensor
    """Float32 ``[B]`` in [0, 1]: how content the user is after this request."""
    left: Tensor
    """Bool ``[B]``: the user's episode ended with this request."""
    gap_days: Tensor | None = None
    """Float32 ``[B]``, only where an episode may hold several sessions: days until the user's next
    session where one, but not the episode, ended with this request; 0 elsewhere."""
    outcomes: dict[str, Tensor] = field(default_factory=dict)
    """Float32 ``[B]`` each: what the request was worth beside clicks (:data:`USER_OUTCOMES`), to
    be added up over an episode. The names are the same in every response."""

    @property
    def clicks(self) -> Tensor:
        """Float32 ``[B, K]``, 1 where the item was clicked."""
        return self.behaviours["click"]


# One call draws all random numbers of a request. The layout is fixed: a column a module, then K
# numbers for the choice, then K for each behaviour. A module switched off leaves its numbers
# unused, so switching one module does not change another's luck.

INTENT_SWITCH, INTENT_PICK, CHOICE, EXAMINE, STOP, LEAVE, RETURN, ARRIVE, PROVIDER = range(9)
"""Columns of :attr:`Draws.scalars`."""
SCALARS = 12  # three to spare, so that a new module does not move the others' numbers


class Draws(NamedTuple):
    """Uniform numbers in (0, 1) for one request of ``B`` sessions."""

    scalars: Tensor
    """Float32 ``[B, >= SCALARS]``; a column a module."""
    choice: Tensor
    """Float32 ``[B, K]``."""
    behaviours: Tensor
    """Float32 ``[B, behaviours * K]``."""

    def one(self, column: int) -> Tensor:
        """Return one scalar column as float32 ``[B, 1]``."""
        return self.scalars[:, column : column + 1]


def request_draws(keys: Tensor, step: Tensor, slate_size: int, behaviours: int) -> Draws:
    """Return the numbers of one request.

    Args:
        keys: int64 ``[B]``, the sessions' keys.
        step: int64 ``[B]``, requests answered so far.
        slate_size: K.
        behaviours: how many behaviours beside the click need a number a position.
    """
    end = SCALARS + slate_size
    numbers = random.uniform(keys, step, "users/request", end + behaviours * slate_size)
    return Draws(numbers, numbers[:, SCALARS:end], numbers[:, end:])


def pick(draw: Tensor, count: Tensor | int) -> Tensor:
    """Return int64 ``floor(draw * count)``, below ``count`` for draws below one (float32)."""
    return (draw * count).to(torch.int64).clamp(max=count - 1)


_RESET_LANES = 8  # 0: user, 1: whether new, the others the model's own


class SessionState:
    """State of ``B`` sessions, each tensor of which begins every episode with one value."""

    def __init__(self, num_sessions: int, device: torch.device) -> None:
        """Args:
        num_sessions: B.
        device: where all tensors live.
        """
        self.num_sessions, self.device = num_sessions, device
        self._first: dict[str, Tensor | float] = {}
        self._live: dict[str, Tensor] = {}

    def _keep(
        self, name: str, first: Tensor | float, *shape: int, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Return state ``[B, *shape]``, to be written in place, that begins with ``first``."""
        live = torch.empty(self.num_sessions, *shape, dtype=dtype, device=self.device)
        self._first[name], self._live[name] = first, live
        Rows().put(live, first)
        return live

    def _begin_anew(self, rows: Rows) -> None:
        for name, first in self._first.items():
            rows.put(self._live[name], first)


class Users(SessionState, ABC):
    """``B`` users, one a session, as a struct of arrays on one device::

        users = make_users(UsersConfig(), population, num_sessions=64)
        keys = random.session_keys(0, torch.arange(64))
        users.reset(keys)
        feedback = users.respond(slate)                 # int64 [64, K]
        users.reset(keys + 1, where=feedback.left)      # new episodes where users left

    All draws come from :mod:`marec_env.random` under the session's key and the request's index, so
    a session does not depend on the batch it runs in. A model of one's own adds its state and its
    response (``examples/own_user_model.py``), or offers all of this itself.
    """

    behaviours: tuple[str, ...] = ("click",)
    """Keys of :attr:`Feedback.behaviours`, in a fixed order, ``click`` first."""
    hidden_size: int
    """Columns of :meth:`hidden_state`."""
    user_index: Tensor
    """Int64 ``[B]``: who the user is in the population (drawn by the session's key)."""
    is_new: Tensor
    """Bool ``[B]``: the recommender has no history of this user."""
    request_index: Tensor
    """Int64 ``[B]``: requests answered so far in this episode."""

    def __init__(
        self, config: UsersConfig, population: Population, num_sessions: int, device: torch.device
    ) -> None:
        """Args:
        config: the section ``users``.
        population: factors need not have unit length here.
        num_sessions: B.
        device: where all tensors live.
        """
        super().__init__(num_sessions, device)
        self.config = config
        self.population = population
        self.num_items = population.num_items
        self.user_index = torch.zeros(num_sessions, dtype=torch.int64, device=device)
        self.is_new = torch.zeros(num_sessions, dtype=torch.bool, device=device)
        self.request_index = torch.zeros_like(self.user_index)
        self._keys = torch.zeros_like(self.user_index)
        self._build(config, population)

    def _build(self, config: UsersConfig, population: Population) -> None:
        """Set up a model's own state and what else it needs."""

    def reset(self, keys: Tensor, where: Tensor | None = None) -> None:
        """Begin new episodes.

        Args:
            keys: int64 ``[B]``, the sessions' keys (:func:`marec_env.random.session_keys`).
            where: bool ``[B]``, which sessions begin anew; all if ``None``. ``keys`` of the others
                are ignored.
        """
        rows = Rows(where)
        if not rows:
            return
        keys = rows.of(keys)
        draw = random.uniform(keys, 0, "users/reset", _RESET_LANES)
        users = pick(draw[:, 0], self.population.num_users)
        rows.put(self._keys, keys)
        rows.put(self.user_index, users)
        rows.put(self.is_new, draw[:, 1] < self.config.new_user_share)
        rows.put(self.request_index, 0)
        self._begin_anew(rows)
        self._begin(rows, users, draw[:, 2:])

    def _begin(self, rows: Rows, users: Tensor, draw: Tensor) -> None:
        """Set what of the state of ``rows`` depends on ``users`` or uniform ``draw`` ``[n, 6]``."""

    @abstractmethod
    def respond(self, slate: Tensor) -> Feedback:
        """Show int64 ``[B, K]`` items, update the users' state, and return their feedback."""

    @abstractmethod
    def click_probability(self, items: Tensor | None = None) -> Tensor:
        """Return the probability that an item would be clicked if it were examined now, from the
        users' present hidden state. Privileged: for oracles, objectives and training only.

        Args:
            items: int64 ``[B, M]``; the whole catalog if ``None``.

        Returns:
            Float32 ``[B, M]`` or ``[B, N]``.
        """

    @abstractmethod
    def long_term_relevance(
        self, items: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """Return the click logit by lasting taste alone (no boredom, no passing intent); shapes as
        in :meth:`click_probability`. Privileged.

        Args:
            items: int64 ``[B, M]``; the whole catalog if ``None``.
            rows: int64 ``[n]``, the sessions asked about (``items`` then has ``n`` rows); all if
                ``None``.
        """

    def relevance_at_start(self, users: Tensor) -> Tensor | None:
        """Return :meth:`long_term_relevance` of the whole catalog to int64 ``[n]`` users when a
        session of theirs begins, ``[n, N]``; ``None`` if that depends on the session too.
        """
        return None

    @abstractmethod
    def hidden_state(self) -> Tensor:
        """Return the users' hidden state, scaled to about [-1, 1], float32 ``[B, hidden_size]``,
        for a privileged critic.
        """

    def _model_state(self) -> dict[str, Tensor]:
        """Return the live tensors of the model's own state."""
        return self._live

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


@dataclass(slots=True)
class Shown:
    """Items that ``B`` sessions are shown, or asked about, and what came of it."""

    slate: Tensor
    """Int64 ``[B, K]``."""
    topics: Tensor
    """Int64 ``[B, K]``, of the items."""
    users: Tensor
    """Int64 ``[B]``."""
    keys: Tensor
    """Int64 ``[B]``, the sessions' keys; ``step`` int64 ``[B]`` counts their requests."""
    step: Tensor
    taste: Tensor
    """Float32 ``[B, d]``, the users' own: a drift writes here."""
    susceptibility: Tensor
    """Float32 ``[B]``, logits lost at full boredom."""
    logits: Tensor = field(init=False)
    """Float32 ``[B, K]``, of a click on the examined item."""
    draws: Draws = field(init=False)
    found: dict[str, Tensor] = field(default_factory=dict)
    """Float32 ``[B, K]``: the behaviours so far, ``click`` first."""
    engagement: Tensor = field(init=False)
    """Float32 ``[B]``; so is ``satisfaction``, after the request."""
    satisfaction: Tensor = field(init=False)
    left: Tensor | None = None
    """Bool ``[B]``: who left, the session at first and in the end for good."""
    gap: Tensor | None = None
    """Float32 ``[B]``, days until the next session where one begins, 0 elsewhere."""
    changed: Rows | None = None
    """Whose interest of the moment is another after the request."""


class Module(SessionState):
    """A part of the users that remembers something of ``B`` sessions.

    A model calls its modules in a fixed order; each does what it does at any of these points.
    """

    def __init__(self, config: UsersConfig, population: Population, num_sessions: int) -> None:
        """Args:
        config: the section ``users``.
        population: who the users are; the state lives on its device.
        num_sessions: B.
        """
        super().__init__(num_sessions, population.user_factors.device)
        self._population = population
        self._build(config, population)

    def _build(self, config: UsersConfig, population: Population) -> None:
        """Set up the state and what else the module needs.

        Raises:
            ConfigError: the population lacks something, which the message names.
        """

    def reset(self, rows: Rows, users: Tensor, keys: Tensor, draw: Tensor) -> None:
        """Begin episodes.

        Args:
            rows: the sessions; the others are of as many rows.
            users: int64 ``[n]``.
            keys: int64 ``[n]``.
            draw: float32 ``[n]``, uniform.
        """
        self._begin_anew(rows)

    def adjust(self, logits: Tensor, shown: Shown) -> Tensor:
        """Return the click logits, float32 ``[B, K]``, after what the module does to them."""
        return logits

    def interest(self, interest: Tensor, rows: Rows) -> Tensor:
        """Return the interest of the moment of ``rows``, float32 ``[n, d]``, likewise."""
        return interest

    def update(self, shown: Shown) -> None:
        """Take one answered request into account."""

    def come_back(self, rows: Rows, rested: Tensor, shown: Shown) -> None:
        """Begin another session of the same episode in ``rows``, after an absence that is worth
        float32 ``[B]`` requests.
        """

    def hidden(self, users: Tensor) -> Tensor | None:
        """Return what a privileged critic may see of the users int64 ``[B]``, float32 ``[B, n]``,
        about [-1, 1].
        """
        return None

    def state(self) -> dict[str, Tensor]:
        """Return the live tensors that make up the state; they are written in place."""
        return self._live
