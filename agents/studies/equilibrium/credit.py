"""Who earned what: Shapley values and difference rewards over components.

A coalition plays its learned policies while everybody else plays the default action; its worth
``v`` is measured for all ``2^n`` coalitions on the same users with the same luck.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import factorial

import numpy as np
from numpy.typing import ArrayLike

from agents.studies.equilibrium.normal_form import Floats

__all__ = ["coalitions", "difference_rewards", "shapley_values", "stand_alone"]


def coalitions(n: int) -> list[tuple[bool, ...]]:
    """Return the ``2^n`` coalitions in the order of a ``[2] * n`` array's cells."""
    return [tuple(bool(m) for m in members) for members in product((0, 1), repeat=n)]


def _by_coalition(worth: ArrayLike) -> Floats:
    values = np.asarray(worth, dtype=np.float64)
    n = int(values.shape[-1]).bit_length() - 1
    if values.shape[-1] != 1 << n or n == 0:
        raise ValueError(f"the last axis must hold all 2^n coalitions, not {values.shape[-1]}")
    return values.reshape(*values.shape[:-1], *(2,) * n)


def shapley_values(worth: ArrayLike) -> Floats:
    """Return each component's mean marginal contribution over all orders of joining.

    Shapley, "A value for n-person games", 1953. Values sum to ``v(all) - v(nobody)``; a component
    that changes nothing gets zero; two that are interchangeable get the same.

    Args:
        worth: ``[..., 2^n]``, in the order of :func:`coalitions`.

    Returns:
        ``[..., n]``.
    """
    values = np.asarray(worth, dtype=np.float64)
    n = _by_coalition(values).ndim - values.ndim + 1
    members = np.array(coalitions(n))
    size = members.sum(axis=1)
    share = np.zeros((*values.shape[:-1], n))
    for component in range(n):
        bit = 1 << (n - 1 - component)
        without = np.flatnonzero(~members[:, component])
        weight = np.array(
            [factorial(s) * factorial(n - s - 1) / factorial(n) for s in size[without]]
        )
        share[..., component] = (values[..., without + bit] - values[..., without]) @ weight
    return share


def difference_rewards(worth: ArrayLike) -> Floats:
    """Return what the whole team loses when a component falls back to its default, ``[..., n]``.

    Wolpert and Tumer, "Optimal payoff functions for members of collectives", 2001.
    """
    values = np.asarray(worth, dtype=np.float64)
    n = _by_coalition(values).ndim - values.ndim + 1
    last = values.shape[-1] - 1
    return np.stack([values[..., last] - values[..., last - (1 << i)] for i in _bits(n)], axis=-1)


def stand_alone(worth: ArrayLike) -> Floats:
    """Return what a component alone adds to the defaults, ``[..., n]``."""
    values = np.asarray(worth, dtype=np.float64)
    n = _by_coalition(values).ndim - values.ndim + 1
    return np.stack([values[..., 1 << i] - values[..., 0] for i in _bits(n)], axis=-1)


def _bits(n: int) -> Sequence[int]:
    """Return the bit of each component in a coalition's number; component 0 has the highest."""
    return range(n - 1, -1, -1)
