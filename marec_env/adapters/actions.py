"""Actions of several components as numbers of one kind, for libraries that know no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from marec_env.errors import ConfigError
from marec_env.vector import Action

__all__ = ["ActionCode", "ActionKind"]

ActionKind = Literal["mixed", "box", "discrete"]
LEVELS = 11
"""Choices that a number of a Box becomes under ``discrete``."""


class ActionCode:
    """What one agent, or several taken as one, decide, as a row of ``d`` numbers a session.

    ``box``: each number is in [-1, 1]; a choice among ``n`` is made by the one of ``n`` equal
    intervals in which its number lies. ``discrete``: each is a choice; a number of a Box is one of
    :data:`LEVELS` evenly spaced ones. ``mixed``: as the agent's own space has it, which takes one
    agent, or several whose spaces are all Boxes, or all choices.
    """

    def __init__(
        self, given: Mapping[str, spaces.Space[Any]], kind: ActionKind, device: torch.device
    ) -> None:
        """Args:
        given: the agents' action spaces.
        kind: see the class.
        device: of the actions.

        Raises:
            ConfigError: the agents' spaces are of different kinds and ``kind`` is ``mixed``, or a
                Box has no bounds.
        """
        self._given = dict(given)
        leaves = [leaf for space in given.values() for leaf in _leaves(space)]
        boxes = [leaf for leaf in leaves if isinstance(leaf, spaces.Box)]
        if kind == "mixed" and len(boxes) not in (0, len(leaves)):
            raise ConfigError(
                f"the actions of {', '.join(given)} are of several kinds, which this library cannot"
                " take as one; choose actions='box' or actions='discrete'"
            )
        self._plain = kind == "mixed"
        self._choices = kind == "discrete" or not (boxes or kind == "box")
        counts = [np.zeros(leaf.shape) if isinstance(leaf, spaces.Box) else _count(leaf)
                  for leaf in leaves]  # fmt: skip
        lows = [leaf.low if isinstance(leaf, spaces.Box) else _start(leaf) for leaf in leaves]
        highs = [leaf.high if isinstance(leaf, spaces.Box) else _start(leaf) for leaf in leaves]
        count, low, high = (np.concatenate([np.ravel(part) for part in parts]).astype(np.float32)
                            for parts in (counts, lows, highs))  # fmt: skip
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ConfigError(f"the actions of {', '.join(given)} have no bounds")
        self.size = len(count)
        """d."""
        self._count, self._low, self._high = (
            torch.from_numpy(part).to(device) for part in (count, low, high)
        )
        self.space: spaces.Box | spaces.MultiDiscrete
        """Of one session."""
        if self._choices:
            levels = np.where(count > 0, count, LEVELS).astype(np.int64)
            self.space = spaces.MultiDiscrete(levels)
        else:
            one = np.ones(self.size, np.float32)
            bounds = (low, high) if self._plain else (-one, one)
            self.space = spaces.Box(*bounds, dtype=np.float32)

    def decode(self, codes: Tensor) -> dict[str, Action]:
        """Return each agent's actions from numbers of :attr:`space`, ``[B, d]``."""
        if self._plain and not self._choices:
            values = codes.to(self._low)
        elif self._choices:
            step = (self._high - self._low) / (LEVELS - 1)
            codes = codes.to(self._low)
            values = torch.where(self._count > 0, codes + self._low, self._low + codes * step)
        else:
            share = (codes.to(self._low).clamp(-1.0, 1.0) + 1.0) / 2.0
            place = torch.minimum((share * self._count).floor(), self._count - 1.0)
            number = self._low + share * (self._high - self._low)
            values = torch.where(self._count > 0, place + self._low, number)
        actions: dict[str, Action] = {}
        first = 0
        for agent, space in self._given.items():
            parts = []
            for leaf in _leaves(space):
                size = int(np.prod(leaf.shape or ()))
                part = values[:, first : first + size].reshape(-1, *(leaf.shape or ()))
                parts.append(part if isinstance(leaf, spaces.Box) else part.to(torch.int64))
                first += size
            actions[agent] = tuple(parts) if isinstance(space, spaces.Tuple) else parts[0]
        return actions


def _leaves(space: spaces.Space[Any]) -> list[spaces.Space[Any]]:
    return list(space.spaces) if isinstance(space, spaces.Tuple) else [space]


def _count(leaf: Any) -> Any:
    return leaf.n if isinstance(leaf, spaces.Discrete) else leaf.nvec


def _start(leaf: Any) -> Any:
    return leaf.start
