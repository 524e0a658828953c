"""Observations, states, action masks and actions between Gymnasium's forms and flat arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv
from torch import Tensor

from marec_env.errors import ConfigError, RunError
from marec_env.registry import naming

_MASK = "action_mask"
_MOST = 10_000_000  # numbers of one flat observation; a Discrete of more is no one-hot vector


class Observations:
    """One agent's observation space: what is returned under it becomes a flat row and a mask.

    PettingZoo's documentation puts an action mask beside the observation, in a dictionary with the
    keys ``observation`` and ``action_mask``, or into ``infos``; both are understood, the former
    beside any other keys too, and whether the space declares it or not.
    """

    def __init__(self, agent: str, space: spaces.Space[Any]) -> None:
        """Raises:
        ConfigError: the space cannot be flattened (Graph, Sequence), or is too large for that.
        """
        self._agent = agent
        # The key under which the observation itself stands in a dictionary with a mask; None where
        # the whole dictionary is the observation.
        self._beside: str | None = None if isinstance(space, spaces.Dict) else "observation"
        self._masked = isinstance(space, spaces.Dict) and _MASK in space.spaces
        if isinstance(space, spaces.Dict) and self._masked:
            others = {key: part for key, part in space.spaces.items() if key != _MASK}
            space = spaces.Dict(others)
            if len(others) == 1:
                self._beside, space = next(iter(others.items()))
        self.space = space
        self._plain = isinstance(space, spaces.Box) and len(space.shape) == 1
        try:
            self.size = int(spaces.flatdim(space))
            flattened = spaces.flatten_space(space) if self.size <= _MOST else None
        except (NotImplementedError, ValueError, TypeError, AttributeError):
            self.size, flattened = 0, None
        if self.size > _MOST:
            raise ConfigError(
                f"observation space of '{agent}' has {self.size:,} numbers when flattened (allowed:"
                f" up to {_MOST:,}): {space}"
            )
        if not isinstance(flattened, spaces.Box) or not self.size:
            raise ConfigError(
                f"observation space of '{agent}' cannot be flattened into a vector (allowed: Box,"
                f" Discrete, MultiDiscrete, MultiBinary, Text, and Dict or Tuple of these): {space}"
            )
        self.box = spaces.Box(-np.inf, np.inf, (self.size,), np.float32)

    def read(self, value: Any, info: Any, row: NDArray[np.float32]) -> Any:
        """Write an observation into ``row`` and return its mask as given, or None.

        Raises:
            RunError: it does not have the declared form.
        """
        mask = info.get(_MASK) if isinstance(info, Mapping) else None
        if isinstance(value, Mapping) and (self._masked or _MASK in value):
            mask = value.get(_MASK, mask)
            if mask is None:
                raise self._refusal(f"without {_MASK!r}")
            if self._beside is not None:
                if self._beside not in value:
                    raise self._refusal(f"without {self._beside!r}")
                value = value[self._beside]
        if self._plain and getattr(value, "shape", None) == row.shape:
            row[:] = value
            return mask
        reason = _misfit(self.space, value)
        if reason:
            raise self._refusal(reason)
        row[:] = np.asarray(spaces.flatten(self.space, value))
        return mask

    def _refusal(self, reason: str) -> RunError:
        return RunError(
            f"environment: an observation of '{self._agent}' is not of its observation_space:"
            f" {reason}"
        )


def _misfit(space: spaces.Space[Any], value: Any) -> str:
    """Return in which way a value differs from its space in form, or ''; bounds are not asked."""
    if isinstance(space, spaces.Box):
        try:
            shape = np.asarray(value, dtype=np.float64).shape
        except (TypeError, ValueError):
            return f"{type(value).__name__} instead of numbers of shape {space.shape}"
        return "" if shape == space.shape else f"shape {shape} instead of {space.shape}"
    if isinstance(space, spaces.Tuple):
        if not isinstance(value, tuple | list) or len(value) != len(space.spaces):
            return f"{type(value).__name__} instead of {len(space.spaces)} parts"
        names = [f"part {number}" for number in range(len(value))]
        space = spaces.Dict(dict(zip(names, space.spaces, strict=True)))
        value = dict(zip(names, value, strict=True))
    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping):
            return f"{type(value).__name__} instead of a dictionary"
        missing = [key for key in space.spaces if key not in value]
        if missing:
            return f"without {', '.join(map(repr, missing))}"
        reasons = ((key, _misfit(part, value[key])) for key, part in space.spaces.items())
        return next((f"{key!r} has {reason}" for key, reason in reasons if reason), "")
    return "" if space.contains(value) else f"{value!r:.60} instead of a member of {space}"


def levels(space: spaces.Space[Any]) -> list[int]:
    """Return the number of levels of each discrete sub-action, in the order of flat masks."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.reshape(-1)]
    if isinstance(space, spaces.MultiBinary):
        return [2] * math.prod(space.shape)
    if isinstance(space, spaces.Tuple):
        return [n for part in space.spaces for n in levels(part)]
    return []


def mask_width(space: spaces.Space[Any]) -> int:
    """Return the booleans of an action space's flat mask; 0 where nothing in it is discrete."""
    return sum(levels(space))


def flat_mask(agent: str, space: spaces.Space[Any], mask: Any) -> NDArray[np.bool_]:
    """Return the flat form of a mask as Gymnasium's ``Space.sample`` takes it.

    For Discrete an array; for MultiDiscrete a tuple of arrays (nested as its shape is) or all of
    them one after another; for MultiBinary an array of 0, 1 and 2 (either), or two booleans a bit;
    for a Tuple a tuple, with None for parts in which all is allowed.

    Raises:
        RunError: it does not fit the action space.
    """
    width = mask_width(space)
    if mask is None:
        return np.ones(width, bool)
    if isinstance(space, spaces.Tuple) and isinstance(mask, tuple | list):
        if len(mask) == len(space.spaces):
            parts = zip(space.spaces, mask, strict=True)
            return np.concatenate([flat_mask(agent, part, piece) for part, piece in parts])
    elif width:
        flat = _numbers(mask)
        if isinstance(space, spaces.MultiBinary) and 2 * flat.size == width:
            return np.stack([flat != 1, flat != 0], axis=-1).reshape(-1)
        if flat.size == width:
            return flat > 0
    raise RunError(
        f"environment: the action_mask of '{agent}' does not fit its action space {space}"
        + (f": {width} numbers are wanted" if width else ", which takes none")
    )


def _numbers(mask: Any) -> NDArray[np.float64]:
    """Return all numbers of a mask, in order; none where it holds anything else."""
    if isinstance(mask, tuple | list) and mask and not all(np.isscalar(part) for part in mask):
        return np.concatenate([_numbers(part) for part in mask])
    try:
        return np.asarray(mask, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        return np.zeros(0)


def may_act(agent: str, space: spaces.Space[Any], mask: NDArray[np.bool_]) -> bool:
    """Return whether a mask leaves a choice; one of zeros alone says that it is not one's turn.

    Raises:
        RunError: some parts of the action are allowed nothing, others something.
    """
    some = [bool(part.any()) for part in np.split(mask, np.cumsum(levels(space))[:-1])]
    if any(some) and not all(some):
        raise RunError(
            f"environment: the action_mask of '{agent}' allows nothing in part"
            f" {some.index(False)} of its action, and something in others"
        )
    return all(some)


def split_mask(mask: Tensor, space: spaces.Space[Any]) -> Any:
    """Return a flat mask ``[B, width]`` in the form of :class:`marec_env.vector.VecStep`."""
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(torch.split(mask, levels(space), dim=-1))
    return mask


def action_of(column: Any, index: int, space: spaces.Space[Any], idle: bool) -> Any:
    """Return action ``index`` of a ``column`` (``[B, ...]``, or a tuple of such) in the form that
    its space asks for. Who is ``idle`` may do nothing: discrete parts are then the first ones, as
    in Gymnasium's ``sample`` under a mask of zeros.
    """
    if isinstance(space, spaces.Discrete):
        return int(space.start) if idle else int(column[index])
    if isinstance(space, spaces.Tuple):
        parts = zip(column, space.spaces, strict=True)
        return tuple(action_of(part, index, inner, idle) for part, inner in parts)
    value = column[index]
    if isinstance(space, spaces.Box):
        value = np.rint(value) if np.issubdtype(space.dtype, np.integer) else value
    elif idle:
        value = space.start if isinstance(space, spaces.MultiDiscrete) else np.zeros_like(value)
    return np.asarray(value, dtype=space.dtype)


def state_of(env: ParallelEnv[Any, Any, Any]) -> NDArray[np.float32] | None:
    """Return a first state, or None where the environment has none (PettingZoo's default raises).

    Raises:
        ConfigError: it is no array of numbers.
    """
    with naming(f"environment '{type(env).__name__}': reset"):
        env.reset(seed=0)
    try:
        return np.asarray(env.state(), np.float32)
    except (NotImplementedError, AttributeError):
        return None
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"environment '{type(env).__name__}': state() gives no array of numbers ({error}); set"
            " environment.state: observations"
        ) from error
