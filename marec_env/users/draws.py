"""One call for all the random numbers of a request.

The layout is fixed: ``SCALARS`` numbers a session, then ``K`` for the choice, then ``K`` for each
behaviour. A module that is switched off leaves its numbers unused, so switching one module does not
change another's luck.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env import random

__all__ = [
    "ARRIVE",
    "CHOICE",
    "EXAMINE",
    "INTENT_PICK",
    "INTENT_SWITCH",
    "LEAVE",
    "PROVIDER",
    "RETURN",
    "STOP",
    "Draws",
    "pick",
    "request_draws",
]

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
