"""Optimisers of a decision under a counted budget of evaluations, all with one signature.

A method never sees noise: it is given the mean over a fixed set of sessions. Whoever calls it must
judge the winner on other sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Protocol

import numpy as np

from agents.studies.equilibrium.normal_form import Floats
from marec_env.errors import ConfigError
from marec_env.registry import Registry

__all__ = ["SEARCHES", "Budget", "Found", "Search"]

Score = Callable[[Floats], Floats]


@dataclass
class Budget:
    """Counts evaluations and remembers the best point so far."""

    score: Score
    """From points ``[P, D]`` to values ``[P]``, to be maximised."""
    total: int
    used: int = 0
    best: Floats = field(default_factory=lambda: np.empty(0))
    value: float = -np.inf
    trace: list[float] = field(default_factory=list)
    """The best value after each evaluation."""
    points: list[Floats] = field(default_factory=list)
    """The best point after each evaluation."""

    @property
    def left(self) -> int:
        """Return how many evaluations remain."""
        return self.total - self.used

    def evaluate(self, points: Floats) -> Floats:
        """Return the values of as many points, clipped to the cube, as the budget still allows."""
        points = np.clip(points[: self.left], 0.0, 1.0)
        values = np.asarray(self.score(points), dtype=np.float64)
        self.used += len(points)
        for point, value in zip(points, values, strict=True):
            if value > self.value:
                self.best, self.value = point.copy(), float(value)
            self.trace.append(self.value)
            self.points.append(self.best)
        return values


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found."""

    best: Floats
    """``[D]``."""
    value: float
    half: Floats
    """``[D]``: the best point when half of the budget was spent."""
    trace: tuple[float, ...]
    """The best value after each evaluation."""


class Search(Protocol):
    """One method: spend the whole budget, starting from ``start`` (evaluated first)."""

    def __call__(
        self, budget: Budget, start: Floats, blocks: Sequence[slice], generator: np.random.Generator
    ) -> None:
        """Spend ``budget``; ``blocks`` are the components' coordinates."""
        ...


SEARCHES: Registry[Search] = Registry("search method")

POPULATION = 16  # candidates an iteration of CEM and ES
ELITES = 4  # a quarter survives (Rubinstein and Kroese, "The Cross-Entropy Method", 2004)
CEM_START = 0.3  # standard deviation of the first population; a uniform draw's is 0.29
CEM_FLOOR = 0.02  # keeps the search alive
CEM_MEMORY = 0.3  # share of the old mean and deviation that is kept
ES_DEVIATION = 0.1  # step of the evolution strategy's perturbations
ES_RATE = 0.1  # its learning rate, in units of the cube
TPE_BATCH = 8  # trials asked at once, so that a batched simulator is used


def run(
    method: Search,
    score: Score,
    budget: int,
    start: Floats,
    blocks: Sequence[slice],
    seed: int,
) -> Found:
    """Spend ``budget`` evaluations of ``score`` and return the best point."""
    if budget < 2:
        raise ConfigError(f"a search needs a budget of at least 2 evaluations, not {budget}")
    spent = Budget(score, budget)
    method(spent, np.asarray(start, dtype=np.float64), blocks, np.random.default_rng(seed))
    half = spent.points[(len(spent.points) - 1) // 2]
    return Found(spent.best, spent.value, half, tuple(spent.trace))


@SEARCHES.register("cem")
def cem(
    budget: Budget, start: Floats, blocks: Sequence[slice], generator: np.random.Generator
) -> None:
    """Cross-entropy method with a diagonal Gaussian; half of the first population is uniform."""
    mean, deviation = start.copy(), np.full(start.size, CEM_START)
    budget.evaluate(start[None])
    first = True
    while budget.left:
        points = np.clip(mean + deviation * generator.normal(size=(POPULATION, start.size)), 0, 1)
        if first:  # a start near a face would otherwise hide the far side
            points[::2] = generator.random(points[::2].shape)
            first = False
        values = budget.evaluate(points)
        elite = points[np.argsort(-values)[:ELITES]]
        mean = CEM_MEMORY * mean + (1 - CEM_MEMORY) * elite.mean(axis=0)
        deviation = CEM_MEMORY * deviation + (1 - CEM_MEMORY) * elite.std(axis=0)
        deviation = np.maximum(deviation, CEM_FLOOR)


@SEARCHES.register("random")
def random_search(
    budget: Budget, start: Floats, blocks: Sequence[slice], generator: np.random.Generator
) -> None:
    """Uniform draws."""
    budget.evaluate(start[None])
    while budget.left:
        budget.evaluate(generator.random((min(budget.left, POPULATION), start.size)))


@SEARCHES.register("grid")
def grid(
    budget: Budget, start: Floats, blocks: Sequence[slice], generator: np.random.Generator
) -> None:
    """Full factorial where two levels a coordinate fit, else one coordinate at a time.

    The one-at-a-time grid varies each coordinate about the best point so far over equal levels.
    """
    budget.evaluate(start[None])
    levels = int((budget.left + 1e-9) ** (1.0 / start.size))
    if levels >= 2:
        axis = np.linspace(0.0, 1.0, levels)
        points = np.array(list(product(axis, repeat=start.size)))
        for first in range(0, len(points), POPULATION):
            budget.evaluate(points[first : first + POPULATION])
        return
    levels = max(2, budget.left // start.size)
    for coordinate in range(start.size):
        if not budget.left:
            return
        points = np.repeat(budget.best[None], levels, axis=0)
        points[:, coordinate] = np.linspace(0.0, 1.0, levels)
        budget.evaluate(points)


@SEARCHES.register("tpe")
def tpe(
    budget: Budget, start: Floats, blocks: Sequence[slice], generator: np.random.Generator
) -> None:
    """Bayesian optimisation by tree-structured Parzen estimators (Optuna)."""
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("optuna is missing; install it: pip install 'marec[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(
        seed=int(generator.integers(2**31)), multivariate=True, constant_liar=True
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    names = [f"x{i}" for i in range(start.size)]
    study.enqueue_trial(dict(zip(names, start.tolist(), strict=True)))
    while budget.left:
        trials = [study.ask() for _ in range(min(TPE_BATCH, budget.left))]
        points = np.array([[t.suggest_float(n, 0.0, 1.0) for n in names] for t in trials])
        for trial, value in zip(trials, budget.evaluate(points), strict=True):
            study.tell(trial, float(value))


@SEARCHES.register("es")
def evolution_strategy(
    budget: Budget, start: Floats, blocks: Sequence[slice], generator: np.random.Generator
) -> None:
    """Antithetic evolution strategy with ranked payoffs (Salimans et al., 2017)."""
    mean = start.copy()
    budget.evaluate(mean[None])
    pairs = POPULATION // 2
    while budget.left:
        step = generator.normal(size=(pairs, start.size))
        steps = np.concatenate([step, -step])
        values = budget.evaluate(mean + ES_DEVIATION * steps)
        if len(values) < len(steps):
            return
        ranks = values.argsort().argsort() / (len(values) - 1) - 0.5
        direction = ranks @ steps
        mean = np.clip(mean + ES_RATE * direction / (np.abs(direction).max() + 1e-12), 0.0, 1.0)


@SEARCHES.register("coordinate")
def coordinate(
    budget: Budget, start: Floats, blocks: Sequence[slice], generator: np.random.Generator
) -> None:
    """Coordinate best response: each component in turn, by CEM, the others at the best so far."""
    budget.evaluate(start[None])
    rounds = 2
    share = max(2, budget.left // (rounds * len(blocks)))
    while budget.left:
        for where in blocks:
            if not budget.left:
                return
            base = budget.best.copy()

            def lifted(points: Floats, base: Floats = base, where: slice = where) -> Floats:
                whole = np.repeat(base[None], len(points), axis=0)
                whole[:, where] = points
                return budget.evaluate(whole)

            inner = Budget(lifted, min(share, budget.left))
            cem(inner, base[where], (slice(0, where.stop - where.start),), generator)
