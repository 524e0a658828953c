"""Stateless randomness: every draw is a pure function of (session key, step, stream, lane).

A 64-bit counter is mixed by the SplitMix64 finaliser (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014), in int64 tensor arithmetic on CUDA and in a compiled
loop on the CPU: the same bits at any batch size and on any device, and nothing to save for a
resume. Two policies evaluated under the same keys meet the same users with the same luck.

Shapes: ``key`` is int64 ``[B]``; ``step`` is an int or int64 ``[B]``; results are ``[B, lanes]``.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Iterable
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marec_env.compiled import compiled, eager
from marec_env.errors import ConfigError

__all__ = [
    "bits",
    "gumbel",
    "integers",
    "normal",
    "session_keys",
    "stream_id",
    "uniform",
    "whole_seed",
]


def _signed(value: int) -> int:
    """Return the int64 with the bits of an unsigned 64-bit integer."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)  # SplitMix64 increment, 2^64 / golden ratio
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)
_STEP = _signed(0xD1342543DE82EF95)  # odd multipliers that keep steps and lanes apart
_LANE = _signed(0xDA942042E4DD58B5)
_BITS = 23  # of the 24 significant bits of a float32; the last keeps draws off 0 and 1
_UNIT = 2.0**-_BITS


def _mix(value: Tensor) -> Tensor:
    """Apply the SplitMix64 finaliser; ``>>`` is arithmetic on int64, hence the masks."""
    value = value ^ ((value >> 30) & ((1 << 34) - 1))
    value = value * _MIX_1
    value = value ^ ((value >> 27) & ((1 << 37) - 1))
    value = value * _MIX_2
    return value ^ ((value >> 31) & ((1 << 33) - 1))


def key_of(name: str) -> int:
    """Return a fixed int64 for a name, independent of the process's hash seed."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def keys_of(names: Iterable[str]) -> Tensor:
    """Return :func:`key_of` each name, int64 ``[n]``."""
    return torch.tensor([key_of(name) for name in names], dtype=torch.int64)


stream_id = cache(key_of)
"""A stream's number, by its name; there are few, and they are asked for at every draw."""


def whole_seed(seed: object) -> int:
    """Return a seed as Python's own integer, which does not overflow as numpy's do.

    Raises:
        ConfigError: it is no integer.
    """
    try:
        return operator.index(seed)  # type: ignore[arg-type]
    except TypeError as error:
        raise ConfigError(f"seed {seed!r} is no integer; give one such as 0") from error


def seeds_of(seed: object, sessions: int, device: torch.device | None = None) -> Tensor:
    """Return the seed of each session, int64 ``[B]``, of one for all or of just these.

    Raises:
        ConfigError: it is no integer, or these are no whole numbers, one for each session.
    """
    if isinstance(seed, Tensor) and seed.ndim:
        if seed.dtype != torch.int64 or seed.shape != (sessions,):
            raise ConfigError(
                f"seeds are {str(seed.dtype).removeprefix('torch.')} {list(seed.shape)}; "
                f"give one integer, or int64 [{sessions}], a seed for each session"
            )
        return seed.to(device, copy=True)
    return torch.full((sessions,), _signed(whole_seed(seed)), device=device)


def session_keys(seed: int | Tensor, sessions: Tensor) -> Tensor:
    """Return the key of each session.

    Args:
        seed: the run's seed, any integer; or the seed of each session's run, int64 ``[B]``.
        sessions: int64 ``[B]``, the sessions' numbers (unique within a run).

    Returns:
        int64 ``[B]``.
    """
    seeds = seeds_of(seed, len(sessions), sessions.device)
    return _mix(_mix(sessions.to(torch.int64) * _GAMMA + seeds * _GAMMA) + seeds)


@cache
def _lane_offsets(lanes: int, device: str) -> Tensor:
    return torch.arange(1, lanes + 1, dtype=torch.int64, device=device) * _LANE


def _mix_lanes(counter: Tensor, lanes: int) -> Tensor:
    return _mix(_mix(counter).unsqueeze(-1) + _lane_offsets(lanes, str(counter.device)))


def bits(key: Tensor, step: Tensor | int, stream: str, lanes: int) -> Tensor:
    """Return 64 random bits a lane, int64 ``[B, lanes]``."""
    counter = _counter(key, step, stream)
    if not eager(key):
        return _mix_lanes(counter, lanes)
    found = torch.empty(*counter.shape, lanes, dtype=torch.int64)
    _write_bits(_unsigned(counter), _unsigned(found).reshape(counter.numel(), lanes))
    return found


def uniform(key: Tensor, step: Tensor | int, stream: str, lanes: int) -> Tensor:
    """Return float32 draws in the open interval (0, 1), ``[B, lanes]``: odd multiples of 2^-24."""
    drawn = bits(key, step, stream, lanes)
    if eager(drawn):
        odd = (_unsigned(drawn) >> np.uint64(64 - _BITS)).astype(np.float32) + np.float32(0.5)
        return torch.from_numpy(odd * np.float32(_UNIT))
    high = (drawn >> (64 - _BITS)).bitwise_and_((1 << _BITS) - 1)
    return high.to(torch.float32).add_(0.5).mul_(_UNIT)


def _counter(key: Tensor, step: Tensor | int, stream: str) -> Tensor:
    if isinstance(step, Tensor):
        return key + (step * _STEP + stream_id(stream))
    return key + _signed(step * _STEP + stream_id(stream))


def _unsigned(value: Tensor) -> NDArray[np.uint64]:
    """Return an int64 tensor's own bits, in which ``>>`` brings in zeros."""
    return value.numpy().view(np.uint64)


_UNSIGNED_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_UNSIGNED_MIX_2 = np.uint64(0x94D049BB133111EB)
_UNSIGNED_LANE = np.uint64(0xDA942042E4DD58B5)


@compiled
def _write_bits(counter: NDArray[np.uint64], found: NDArray[np.uint64]) -> None:
    """Write the bits of every lane: :func:`_mix` of the counter, and again of each lane."""
    for row, value in enumerate(counter.flat):
        value ^= value >> np.uint64(30)
        value *= _UNSIGNED_MIX_1
        value ^= value >> np.uint64(27)
        value *= _UNSIGNED_MIX_2
        value ^= value >> np.uint64(31)
        for lane in range(found.shape[1]):
            draw = value + np.uint64(lane + 1) * _UNSIGNED_LANE
            draw ^= draw >> np.uint64(30)
            draw *= _UNSIGNED_MIX_1
            draw ^= draw >> np.uint64(27)
            draw *= _UNSIGNED_MIX_2
            found[row, lane] = draw ^ (draw >> np.uint64(31))


def normal(key: Tensor, step: Tensor | int, stream: str, lanes: int) -> Tensor:
    """Return standard normal draws, ``[B, lanes]``, by the inverse distribution function."""
    return math.sqrt(2.0) * torch.erfinv(2.0 * uniform(key, step, stream, lanes) - 1.0)


def gumbel(key: Tensor, step: Tensor | int, stream: str, lanes: int) -> Tensor:
    """Return standard Gumbel draws, ``[B, lanes]`` (for sampling by arg-max)."""
    return -torch.log(-torch.log(uniform(key, step, stream, lanes)))


def integers(key: Tensor, step: Tensor | int, stream: str, lanes: int, high: int) -> Tensor:
    """Return int64 draws from ``0 ... high - 1``, ``[B, lanes]``; bias below ``high`` / 2^63."""
    return (bits(key, step, stream, lanes) & ((1 << 63) - 1)) % high
