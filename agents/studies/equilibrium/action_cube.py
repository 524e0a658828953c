"""Any action space as a unit cube, so that one search method serves every component."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from agents.studies.equilibrium.normal_form import Floats
from marec_env.errors import ConfigError
from marec_env.vector import Action

__all__ = ["coordinates", "decode", "encode"]


def coordinates(space: spaces.Space[Any]) -> int:
    """Return how many coordinates an action has: one a number of a Box, one a discrete choice.

    Raises:
        ConfigError: the space is none of Box (bounded), Discrete, MultiDiscrete, Tuple of these.
    """
    if isinstance(space, spaces.Box):
        if not space.is_bounded("both"):
            raise ConfigError(f"a search needs a bounded action space, not {space}")
        return int(np.prod(space.shape))
    if isinstance(space, spaces.Discrete):
        return 1
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.size)
    if isinstance(space, spaces.Tuple):
        return sum(coordinates(part) for part in space.spaces)
    raise ConfigError(
        f"cannot search action space {space}; known: Box, Discrete, MultiDiscrete, Tuple"
    )


def decode(space: spaces.Space[Any], point: Floats) -> Action:
    """Return the action at a point ``[coordinates(space)]``, without a batch dimension.

    A discrete choice among ``n`` takes an ``n``-th of its coordinate's range each.
    """
    if isinstance(space, spaces.Box):
        unit = torch.as_tensor(point, dtype=torch.float32).reshape(space.shape)
        low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
        return (low + (high - low) * unit).to(torch.float32)
    if isinstance(space, spaces.Discrete):
        return _levels(point, np.array([space.n]))[0] + int(space.start)
    if isinstance(space, spaces.MultiDiscrete):
        return _levels(point, space.nvec.reshape(-1)).reshape(space.nvec.shape)
    if isinstance(space, spaces.Tuple):
        parts, start = [], 0
        for inner in space.spaces:
            width = coordinates(inner)
            part = decode(inner, point[start : start + width])
            assert isinstance(part, Tensor)
            parts.append(part)
            start += width
        return tuple(parts)
    raise ConfigError(f"cannot search action space {space}")


def encode(space: spaces.Space[Any], action: Action) -> Floats:
    """Return a point that decodes to an action (the middle of a discrete choice's range)."""
    if isinstance(space, spaces.Tuple):
        parts = [encode(inner, part) for inner, part in zip(space.spaces, action, strict=True)]
        return np.concatenate(parts)
    values = np.asarray(torch.as_tensor(action), dtype=np.float64).reshape(-1)
    if isinstance(space, spaces.Box):
        low, high = space.low.reshape(-1), space.high.reshape(-1)
        width = np.where(high > low, high - low, 1.0)
        return np.asarray(np.clip((values - low) / width, 0.0, 1.0), dtype=np.float64)
    if isinstance(space, spaces.Discrete):
        return np.asarray((values - float(space.start) + 0.5) / float(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return np.asarray((values + 0.5) / space.nvec.reshape(-1), dtype=np.float64)
    raise ConfigError(f"cannot search action space {space}")


def _levels(point: Floats, sizes: Floats) -> Tensor:
    level = np.minimum(np.floor(np.clip(point, 0.0, 1.0) * sizes), sizes - 1)
    return torch.as_tensor(level.astype(np.int64))
