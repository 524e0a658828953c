"""The cross-entropy method, under a counted budget of evaluations.

The search never sees noise: it is given the mean over a fixed set of sessions. Whoever calls it
must judge the winner on other sessions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from agents.studies.equilibrium.normal_form import Floats
from marec_env.errors import ConfigError

__all__ = ["Found", "search"]

POPULATION = 16  # candidates an iteration
ELITES = 4  # a quarter survives (Rubinstein and Kroese, "The Cross-Entropy Method", 2004)
START = 0.3  # standard deviation of the first population; a uniform draw's is 0.29
FLOOR = 0.02  # keeps the search alive
MEMORY = 0.3  # share of the old mean and deviation that is kept


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found."""

    best: Floats
    """``[D]``."""
    value: float
    half: Floats
    """``[D]``: the best point when half of the budget was spent."""


def search(score: Callable[[Floats], Floats], budget: int, start: Floats, seed: int) -> Found:
    """Spend ``budget`` evaluations of ``score`` in the unit cube and return the best point.

    A diagonal Gaussian; half of the first population is uniform, since a start near a face would
    otherwise hide the far side. ``start [D]`` is evaluated first. The score is from points
    ``[P, D]`` to values ``[P]``, to be maximised.

    Raises:
        ConfigError: the budget is less than 2.
    """
    if budget < 2:
        raise ConfigError(f"a search needs a budget of at least 2 evaluations, not {budget}")
    generator = np.random.default_rng(seed)
    mean = np.asarray(start, dtype=np.float64)
    deviation = np.full(mean.size, START)
    tried, scored = [np.clip(mean[None], 0.0, 1.0)], [np.asarray(score(np.clip(mean[None], 0, 1)))]
    spent = 1
    while spent < budget:
        points = np.clip(mean + deviation * generator.normal(size=(POPULATION, mean.size)), 0, 1)
        if spent == 1:
            points[::2] = generator.random(points[::2].shape)
        points = points[: budget - spent]
        values = np.asarray(score(points), dtype=np.float64)
        spent += len(points)
        tried.append(points)
        scored.append(values)
        elite = points[np.argsort(-values)[:ELITES]]
        mean = MEMORY * mean + (1 - MEMORY) * elite.mean(axis=0)
        deviation = MEMORY * deviation + (1 - MEMORY) * elite.std(axis=0)
        deviation = np.maximum(deviation, FLOOR)
    points, values = np.concatenate(tried), np.concatenate(scored)
    best, half = int(values.argmax()), int(values[: (budget + 1) // 2].argmax())
    return Found(points[best], float(values[best]), points[half])
