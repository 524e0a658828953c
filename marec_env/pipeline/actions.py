"""Actions as rows of numbers of one kind: ``pipeline.actions``, and views for other libraries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from marec_env.errors import ConfigError
from marec_env.pipeline.config import ActionKind
from marec_env.vector import Action

LEVELS = 11
"""Choices that a number of a Box becomes under ``discrete``."""
_LEAST = 1e-12  # half a width, where there is none


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
                f"the actions of {', '.join(given)} are of several kinds and make no one space;"
                " choose actions='box' or actions='discrete' here, or as the environment's"
                " pipeline.actions"
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
        self._count, self._low, self._middle, self._half = (
            torch.from_numpy(part).to(device)
            for part in (count, low, (low + high) / 2, (high - low) / 2)
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

    def decode(self, codes: Action) -> dict[str, Action]:
        """Return each agent's actions from numbers of :attr:`space`, ``[B, d]``."""
        assert isinstance(codes, Tensor)
        codes = codes.to(self._low)
        choice = self._count > 0
        if self._plain and not self._choices:
            values = codes
        elif self._choices:
            level = (2.0 * codes - (LEVELS - 1)) / (LEVELS - 1)  # in [-1, 1]
            values = torch.where(choice, self._low + codes, self._middle + level * self._half)
        else:
            codes = codes.clamp(-1.0, 1.0)
            place = torch.minimum(((codes + 1.0) / 2.0 * self._count).floor(), self._count - 1.0)
            values = torch.where(choice, self._low + place, self._middle + codes * self._half)
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

    def encode(self, actions: Mapping[str, Action]) -> Tensor:
        """Return numbers of :attr:`space`, ``[B, d]``, that decode to actions; under ``discrete`` a
        number of a Box to the level nearest to it.
        """
        parts: list[Tensor] = []
        for agent in self._given:
            action = actions[agent]
            parts += action if isinstance(action, tuple) else (action,)
        values = torch.cat([part.to(self._low).reshape(len(part), -1) for part in parts], dim=1)
        if self._plain and not self._choices:
            return values
        choice = self._count > 0
        place = values - self._low
        number = (values - self._middle) / self._half.clamp(min=_LEAST)
        if self._choices:
            level = ((number + 1.0) * (LEVELS - 1) / 2.0).round().clamp(0, LEVELS - 1)
            return torch.where(choice, place, level).to(torch.int64)
        return torch.where(choice, (2.0 * place + 1.0) / self._count.clamp(min=1.0) - 1.0, number)


def _leaves(space: spaces.Space[Any]) -> list[spaces.Space[Any]]:
    return list(space.spaces) if isinstance(space, spaces.Tuple) else [space]


def _count(leaf: Any) -> Any:
    return leaf.n if isinstance(leaf, spaces.Discrete) else leaf.nvec


def _start(leaf: Any) -> Any:
    return leaf.start
