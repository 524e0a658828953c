"""Games with known answers, by name: ``penalty:-25``, ``prisoners-dilemma``, ..."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from agents.studies.equilibrium.normal_form import NormalFormGame
from marec_env.errors import ConfigError, unknown_name

__all__ = ["MATRIX_GAMES", "matrix_game"]


def penalty(k: float = 0.0) -> NormalFormGame:
    """Return the penalty game of Claus and Boutilier (1998): miscoordination costs ``k``."""
    entries = np.array([[k, 0.0, 10.0], [0.0, 2.0, 0.0], [10.0, 0.0, k]])
    return NormalFormGame(np.stack([entries, entries]))


def climbing(_: float = 0.0) -> NormalFormGame:
    """Return the climbing game (Claus and Boutilier, 1998): the optimum lies behind a penalty."""
    entries = np.array([[11.0, -30.0, 0.0], [-30.0, 7.0, 6.0], [0.0, 0.0, 5.0]])
    return NormalFormGame(np.stack([entries, entries]))


def prisoners_dilemma(temptation: float = 5.0) -> NormalFormGame:
    """Return the dilemma with payoffs ``temptation``, 3, 1, 0: selfish play loses two thirds."""
    row = np.array([[3.0, 0.0], [temptation, 1.0]])
    names = ("cooperate", "defect")
    return NormalFormGame(np.stack([row, row.T]), labels=(names, names))


def chicken(_: float = 0.0) -> NormalFormGame:
    """Return Aumann's (1974) game, where correlation beats every mixture of equilibria."""
    row = np.array([[6.0, 2.0], [7.0, 0.0]])
    names = ("yield", "dare")
    return NormalFormGame(np.stack([row, row.T]), labels=(names, names))


def matching_pennies(_: float = 0.0) -> NormalFormGame:
    """Return the zero-sum game without a pure equilibrium."""
    row = np.array([[1.0, -1.0], [-1.0, 1.0]])
    return NormalFormGame(np.stack([row, -row]), labels=(("heads", "tails"),) * 2)


MATRIX_GAMES: dict[str, tuple[Callable[[float], NormalFormGame], float]] = {
    "penalty": (penalty, 0.0),
    "climbing": (climbing, 0.0),
    "prisoners-dilemma": (prisoners_dilemma, 5.0),
    "chicken": (chicken, 0.0),
    "matching-pennies": (matching_pennies, 0.0),
}
"""Name to the maker and the default of its number."""


def matrix_game(spec: str) -> NormalFormGame:
    """Return the game named by ``name`` or ``name:number``.

    Raises:
        ConfigError: the name is unknown or the number is not one.
    """
    name, _, number = spec.partition(":")
    if name not in MATRIX_GAMES:
        raise ConfigError(unknown_name("game", name, MATRIX_GAMES))
    make, default = MATRIX_GAMES[name]
    try:
        return make(float(number) if number else default)
    except ValueError as error:
        raise ConfigError(f"'{number}' in game '{spec}' is not a number") from error
