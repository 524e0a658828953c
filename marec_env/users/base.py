"""What every batched user simulator offers: the one place where users and pipeline meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from marec_env import random

__all__ = [
    "USER_OUTCOMES",
    "Draws",
    "Feedback",
    "Users",
    "pick",
    "request_draws",
    "rows_of",
]

USER_OUTCOMES = (
    "likes",
    "carts",
    "purchases",
    "shares",
    "conversions",
    "revenue",
    "watch_minutes",
    "finished",
    "holding_days",
    "holding_return",
    "unsuitable",
)
"""Names of :attr:`Feedback.outcomes` in the order in which reports show them; a user model of one's
own may add others. Revenue is in currency units, the return in percent summed over purchases."""


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


def rows_of(where: Tensor | None, num_sessions: int, device: torch.device) -> Tensor:
    """Return the sessions that :meth:`Users.reset` is to begin anew, int64 ``[n]``.

    Args:
        where: bool ``[B]``; all if ``None``.
        num_sessions: B.
        device: of the answer if all.
    """
    if where is None:
        return torch.arange(num_sessions, device=device)
    return where.nonzero().squeeze(1)


class Users(Protocol):
    """``B`` users, one a session, as a struct of arrays on one device.

    All draws come from :mod:`marec_env.random` under the session's key and the request's index, so
    a session does not depend on the batch it runs in.
    """

    num_sessions: int
    num_items: int
    behaviours: tuple[str, ...]
    """Keys of :attr:`Feedback.behaviours`, in a fixed order, ``click`` first."""
    user_index: Tensor
    """Int64 ``[B]``: who the user is in the population (drawn by the session's key)."""
    is_new: Tensor
    """Bool ``[B]``: the recommender has no history of this user."""
    request_index: Tensor
    """Int64 ``[B]``: requests answered so far in this episode."""
    hidden_size: int

    def reset(self, keys: Tensor, where: Tensor | None = None) -> None:
        """Begin new episodes.

        Args:
            keys: int64 ``[B]``, the sessions' keys (:func:`marec_env.random.session_keys`).
            where: bool ``[B]``, which sessions begin anew; all if ``None``. ``keys`` of the others
                are ignored.
        """
        ...

    def respond(self, slate: Tensor) -> Feedback:
        """Show int64 ``[B, K]`` items, update the users' state, and return their feedback."""
        ...

    def click_probability(self, items: Tensor | None = None) -> Tensor:
        """Return the probability that an item would be clicked if it were examined now, from the
        users' present hidden state. Privileged: for oracles, objectives and training only.

        Args:
            items: int64 ``[B, M]``; the whole catalog if ``None``.

        Returns:
            Float32 ``[B, M]`` or ``[B, N]``.
        """
        ...

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
        ...

    def hidden_state(self) -> Tensor:
        """Return the users' hidden state, scaled to about [-1, 1], float32 ``[B, hidden_size]``,
        for a privileged critic.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to continue exactly."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        ...


# One call draws all random numbers of a request. The layout is fixed: a column a module, then K
# numbers for the choice, then K for each behaviour. A module switched off leaves its numbers
# unused, so switching one module does not change another's luck.

INTENT_SWITCH, INTENT_PICK, CHOICE, EXAMINE, STOP, LEAVE, RETURN, ARRIVE, PROVIDER = range(9)
"""Columns of :attr:`Draws.scalars`."""
SCALARS = 12  # three to spare, so that a new module does not move the others' numbers


class Draws:
    """Uniform numbers in (0, 1) for one request of ``B`` sessions."""

    __slots__ = ("behaviours", "choice", "scalars")

    def __init__(self, numbers: Tensor, slate_size: int) -> None:
        """Args:
        numbers: float32 ``[B, SCALARS + (1 + behaviours) K]``.
        slate_size: K.
        """
        self.scalars = numbers
        """Float32 ``[B, >= SCALARS]``; a column a module."""
        self.choice = numbers[:, SCALARS : SCALARS + slate_size]
        """Float32 ``[B, K]``."""
        self.behaviours = numbers[:, SCALARS + slate_size :]
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
    lanes = SCALARS + (1 + behaviours) * slate_size
    return Draws(random.uniform(keys, step, "users/request", lanes), slate_size)


def pick(draw: Tensor, count: Tensor | int) -> Tensor:
    """Return int64 ``floor(draw * count)``, below ``count`` for draws below one (float32)."""
    index = (draw * count).to(torch.int64)
    return torch.minimum(index, torch.as_tensor(count, device=draw.device) - 1)
