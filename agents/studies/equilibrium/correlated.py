"""Correlated equilibria by linear programming.

A mediator draws a pure profile and tells each player its part; nobody gains by doing otherwise
(Aumann, "Subjectivity and correlation in randomized strategies", 1974). The set is a polytope, so
the best and the worst welfare in it are linear programmes, for any number of players.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from agents.studies.equilibrium.normal_form import Floats, NormalFormGame

__all__ = ["CorrelatedEquilibrium", "correlated_equilibrium", "obedience_gaps"]


@dataclass(frozen=True, slots=True)
class CorrelatedEquilibrium:
    """A distribution over pure profiles that every player obeys."""

    distribution: Floats
    """``[A_1, ..., A_n]``, summing to 1."""
    welfare: float


def _obedience(game: NormalFormGame) -> Floats:
    """Return ``[rows, profiles]``: what a deviation from a told action to another gains."""
    rows = []
    for player, size in enumerate(game.shape):
        values = np.moveaxis(game.payoffs[player], player, 0)
        for told in range(size):
            for done in range(size):
                if told != done:
                    gain = np.zeros_like(values)
                    gain[told] = values[done] - values[told]
                    rows.append(np.moveaxis(gain, 0, player).ravel())
    return np.array(rows).reshape(len(rows), int(np.prod(game.shape)))


def correlated_equilibrium(game: NormalFormGame, best: bool = True) -> CorrelatedEquilibrium:
    """Return the correlated equilibrium of the highest (or lowest) welfare.

    Raises:
        RuntimeError: the solver failed (a correlated equilibrium always exists).
    """
    obedience = _obedience(game)
    sign = -1.0 if best else 1.0
    solved = linprog(
        sign * game.welfare.ravel(),
        A_ub=obedience / game.scale if len(obedience) else None,
        b_ub=np.zeros(len(obedience)) if len(obedience) else None,
        A_eq=np.ones((1, game.welfare.size)),
        b_eq=[1.0],
        bounds=(0.0, 1.0),
        method="highs",
    )
    if not solved.success:
        raise RuntimeError(f"no correlated equilibrium found: {solved.message}")
    distribution = np.clip(np.asarray(solved.x), 0.0, None).reshape(game.shape)
    distribution /= distribution.sum()
    return CorrelatedEquilibrium(distribution, float((distribution * game.welfare).sum()))


def obedience_gaps(game: NormalFormGame, distribution: Floats) -> Floats:
    """Return what each deviation gains under a distribution; none is positive at an equilibrium."""
    return np.asarray(_obedience(game) @ distribution.ravel())
