"""Games in normal form: payoffs of mixed profiles, best-response gains, NashConv, welfare.

Standard definitions (Nisan et al., "Algorithmic Game Theory", 2007, chapters 1, 2 and 17;
Lanctot et al., "A Unified Game-Theoretic Approach to Multiagent Reinforcement Learning", 2017, for
NashConv). Payoffs are to be maximised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from marec_env.errors import ConfigError, unknown_name

__all__ = [
    "MATRIX_GAMES",
    "TOLERANCE",
    "Floats",
    "MixedProfile",
    "NormalFormGame",
    "efficiency",
    "matrix_game",
]

Floats = NDArray[np.float64]
MixedProfile = Sequence[Floats]
"""One probability vector ``[A_i]`` a player."""

TOLERANCE = 1e-9
"""Gain, relative to the range of the payoffs, that still counts as none (float64 rounding)."""


@dataclass(frozen=True, slots=True)
class NormalFormGame:
    """``n`` players, player ``i`` with ``A_i`` actions.

    Raises:
        ConfigError: shapes disagree or a payoff is not finite.
    """

    payoffs: Floats
    """``[n, A_1, ..., A_n]``: what each player is paid at each pure profile."""
    welfare: Floats = field(default_factory=lambda: np.empty(0))
    """``[A_1, ..., A_n]``: what the team is worth at each pure profile; the sum of the payoffs
    unless given."""
    labels: tuple[tuple[str, ...], ...] = ()
    """Per player the names of the actions; numbers unless given."""
    players: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        payoffs = np.asarray(self.payoffs, dtype=np.float64)
        n = payoffs.shape[0] if payoffs.ndim else 0
        if n == 0 or payoffs.ndim != n + 1 or 0 in payoffs.shape:
            raise ConfigError(
                f"payoffs of {n} players need shape [{n}, A_1, ..., A_{n}], not "
                f"{list(payoffs.shape)}"
            )
        if not np.isfinite(payoffs).all():
            raise ConfigError("payoffs must be finite numbers")
        welfare = np.asarray(self.welfare, dtype=np.float64)
        if welfare.size == 0:
            welfare = payoffs.sum(axis=0)
        if welfare.shape != payoffs.shape[1:]:
            raise ConfigError(
                f"welfare has shape {list(welfare.shape)}, the game {list(payoffs.shape[1:])}"
            )
        labels = self.labels or tuple(
            tuple(str(action) for action in range(size)) for size in payoffs.shape[1:]
        )
        if tuple(len(names) for names in labels) != payoffs.shape[1:]:
            raise ConfigError("one label an action is needed")
        players = self.players or tuple(f"player_{i}" for i in range(n))
        if len(players) != n:
            raise ConfigError(f"{len(players)} player names for {n} players")
        object.__setattr__(self, "payoffs", payoffs)
        object.__setattr__(self, "welfare", welfare)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "players", players)

    @property
    def num_players(self) -> int:
        """Return ``n``."""
        return int(self.payoffs.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """Return ``(A_1, ..., A_n)``."""
        return tuple(self.payoffs.shape[1:])

    @property
    def scale(self) -> float:
        """Return the range of the payoffs, at least 1: the unit of numerical tolerances."""
        return max(1.0, float(np.ptp(self.payoffs)))

    def uniform(self) -> list[Floats]:
        """Return the profile in which everybody draws all actions with equal probability."""
        return [np.full(size, 1.0 / size) for size in self.shape]

    def pure(self, actions: Sequence[int]) -> list[Floats]:
        """Return a pure profile as probability vectors."""
        return [np.eye(size)[action] for size, action in zip(self.shape, actions, strict=True)]

    def action_values(self, player: int, profile: MixedProfile) -> Floats:
        """Return ``[A_i]``: what each action pays the player while the others play ``profile``."""
        values = self.payoffs[player]
        for other in reversed(range(self.num_players)):
            if other != player:
                values = np.moveaxis(values, other, -1) @ np.asarray(profile[other])
        return np.asarray(values, dtype=np.float64)

    def expected(self, profile: MixedProfile) -> Floats:
        """Return ``[n]``: every player's expected payoff."""
        return np.array(
            [
                self.action_values(i, profile) @ np.asarray(profile[i])
                for i in range(self.num_players)
            ]
        )

    def expected_welfare(self, profile: MixedProfile) -> float:
        """Return the team's expected worth."""
        value = self.welfare
        for weights in reversed(profile):
            value = value @ np.asarray(weights)
        return float(value)

    def gains(self, profile: MixedProfile) -> Floats:
        """Return ``[n]``: what each player gains by its best response to the others; ≥ 0."""
        best = [self.action_values(i, profile).max() for i in range(self.num_players)]
        return np.maximum(np.array(best) - self.expected(profile), 0.0)

    def nash_conv(self, profile: MixedProfile) -> float:
        """Return the sum of the best-response gains: zero exactly at a Nash equilibrium."""
        return float(self.gains(profile).sum())

    def exploitability(self, profile: MixedProfile) -> float:
        """Return NashConv divided by the number of players."""
        return self.nash_conv(profile) / self.num_players

    def is_equilibrium(self, profile: MixedProfile, tolerance: float = TOLERANCE) -> bool:
        """Return whether no player gains more than ``tolerance`` of the payoffs' range."""
        return bool((self.gains(profile) <= tolerance * self.scale).all())

    def pure_equilibria(self) -> list[tuple[int, ...]]:
        """Return all pure profiles at which nobody gains by deviating, for any ``n``."""
        stable = np.ones(self.shape, dtype=bool)
        for player in range(self.num_players):
            values = self.payoffs[player]
            best = values.max(axis=player, keepdims=True)
            stable &= values >= best - TOLERANCE * self.scale
        return [tuple(int(a) for a in actions) for actions in np.argwhere(stable)]

    def social_optimum(self) -> tuple[tuple[int, ...], float]:
        """Return the pure profile of the highest welfare, and that welfare."""
        at = np.unravel_index(int(self.welfare.argmax()), self.shape)
        return tuple(int(a) for a in at), float(self.welfare.max())


def efficiency(
    game: NormalFormGame, equilibria: Sequence[MixedProfile]
) -> tuple[float | None, float | None]:
    """Return the price of anarchy and the price of stability as shares of the optimum.

    Both are welfare at an equilibrium over welfare at the social optimum: the worst equilibrium
    for anarchy (Koutsoupias and Papadimitriou, 1999), the best for stability (Anshelevich et al.,
    2004). 1 says that selfish play loses nothing. Literature on costs quotes the inverse.

    Returns:
        ``(anarchy, stability)``; ``None`` where the ratio means nothing: no equilibria given, or
        the optimum is not positive.
    """
    optimum = game.social_optimum()[1]
    if not equilibria or optimum <= 0:
        return None, None
    worth = [game.expected_welfare(profile) / optimum for profile in equilibria]
    return min(worth), max(worth)


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
