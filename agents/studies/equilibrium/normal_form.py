"""Two-player games in normal form: gains, NashConv, welfare, all Nash equilibria, and their tables.

Standard definitions (Nisan et al., "Algorithmic Game Theory", 2007, chapters 1, 2 and 17; Lanctot
et al., "A Unified Game-Theoretic Approach to Multiagent Reinforcement Learning", 2017, for
NashConv). Payoffs are to be maximised.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marec_env.errors import ConfigError, unknown_name
from marec_env.reporting.table import TextTable

Floats = NDArray[np.float64]
Rows = Callable[[float], list[list[float]]]
MixedProfile = Sequence[Floats]
"""One probability vector ``[A_i]`` a player."""

TOLERANCE = 1e-9
"""Gain, relative to the range of the payoffs, that still counts as none (float64 rounding)."""
ENUMERATION_LIMIT = 16
"""Undominated actions of both players up to which all equilibria are enumerated; that visits up to
2^16 pairs of supports (seconds), and twice as many for one action more."""
LARGEST = 1e6  # payoff that a named game may be given
CHECK = 1e-6  # relative gain above which an equilibrium handed back by the solver is refused
SHOWN = 1e-6  # probabilities below this are not printed
SAME = 1e-5  # largest difference of probabilities at which two equilibria are the same


@dataclass(frozen=True, slots=True)
class NormalFormGame:
    """Player 0 has ``A`` actions, player 1 ``B``."""

    payoffs: Floats
    """``[2, A, B]``: what each player is paid at each pure profile."""
    welfare: Floats = field(default_factory=lambda: np.empty(0))
    """``[A, B]``: the team's worth at each pure profile; the sum of the payoffs unless given."""
    labels: tuple[tuple[str, ...], ...] = ()
    """Per player the names of the actions; numbers unless given."""
    players: tuple[str, ...] = ("player_0", "player_1")

    def __post_init__(self) -> None:
        numbers = tuple(tuple(str(action) for action in range(size)) for size in self.shape)
        object.__setattr__(self, "labels", self.labels or numbers)
        if self.welfare.size == 0:
            object.__setattr__(self, "welfare", self.payoffs.sum(axis=0))

    @property
    def shape(self) -> tuple[int, ...]:
        """Return ``(A, B)``."""
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

    def action_values(self, profile: MixedProfile) -> tuple[Floats, Floats]:
        """Return ``[A]`` and ``[B]``: what each action pays while the other plays ``profile``."""
        return self.payoffs[0] @ profile[1], self.payoffs[1].T @ profile[0]

    def expected(self, profile: MixedProfile) -> Floats:
        """Return ``[2]``: both players' expected payoffs."""
        values = self.action_values(profile)
        return np.array([v @ weights for v, weights in zip(values, profile, strict=True)])

    def expected_welfare(self, profile: MixedProfile) -> float:
        """Return the team's expected worth."""
        return float(self.welfare @ profile[1] @ profile[0])

    def gains(self, profile: MixedProfile) -> Floats:
        """Return ``[2]``: what each player gains by its best response to the other; ≥ 0."""
        best = np.array([values.max() for values in self.action_values(profile)])
        return np.maximum(best - self.expected(profile), 0.0)

    def nash_conv(self, profile: MixedProfile) -> float:
        """Return the sum of the best-response gains: zero exactly at a Nash equilibrium."""
        return float(self.gains(profile).sum())

    def pure_equilibria(self) -> list[tuple[int, ...]]:
        """Return all pure profiles at which nobody gains by deviating."""
        slack = TOLERANCE * self.scale
        first, second = self.payoffs
        stable = first >= first.max(axis=0, keepdims=True) - slack
        stable &= second >= second.max(axis=1, keepdims=True) - slack
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


@dataclass(frozen=True, slots=True)
class Equilibria:
    """Nash equilibria of a game, and what is known about the list."""

    profiles: tuple[MixedProfile, ...]
    complete: bool
    """Whether the list holds every equilibrium (of a degenerate game: every extreme one)."""
    degenerate: bool
    """Whether some equilibrium has more best responses than actions played: there may be a
    continuum, of which the list holds the end points."""
    notes: tuple[str, ...] = ()


def find_equilibria(game: NormalFormGame) -> Equilibria:
    """Return all equilibria, or the pure ones where more actions are undominated than
    :data:`ENUMERATION_LIMIT`.

    Raises:
        ConfigError: nashpy (``pip install marec[games]``) is missing.
    """
    found: list[MixedProfile] = [game.pure(actions) for actions in game.pure_equilibria()]
    keep = undominated(game)
    sizes = [len(actions) for actions in keep]
    complete, notes = sum(sizes) <= ENUMERATION_LIMIT, []
    if not complete:
        notes.append(
            f"{sizes[0]} × {sizes[1]} undominated actions, more than {ENUMERATION_LIMIT}: only "
            "pure equilibria are listed"
        )
    elif min(sizes) > 1:  # else one mixes its best responses; the ends of that are pure
        mixed, failed = _enumerated([m[np.ix_(*keep)] for m in game.payoffs])
        for pair in mixed:
            found.append([_lifted(*one) for one in zip(pair, keep, game.shape, strict=True)])
        if failed:
            complete = False
            notes.append(f"vertex enumeration failed ({failed})")
    profiles: list[MixedProfile] = []
    for profile in found:
        known = any(
            max(np.abs(a - b).max() for a, b in zip(profile, other, strict=True)) < SAME
            for other in profiles
        )
        if not known and (game.gains(profile) <= CHECK * game.scale).all():  # NaN is refused
            profiles.append(profile)
    degenerate = any(_has_spare_best_response(game, profile) for profile in profiles)
    if degenerate:
        notes.append("degenerate game: end points of continua of equilibria are listed")
    return Equilibria(tuple(profiles), complete, degenerate, tuple(notes))


def undominated(game: NormalFormGame) -> list[list[int]]:
    """Return per player the actions that survive iterated elimination.

    An action goes if another pure action pays strictly more against everything that is left; no
    equilibrium plays it.
    """
    keep = [list(range(size)) for size in game.shape]
    while True:
        left = []
        for player, actions in enumerate(keep):
            values = np.moveaxis(game.payoffs[player][np.ix_(*keep)], player, 0)
            beaten = (values[:, None] > values[None]).all(axis=2).any(axis=0)
            left.append([a for a, gone in zip(actions, beaten, strict=True) if not gone])
        if left == keep:
            return keep
        keep = left


def _enumerated(payoffs: Sequence[Floats]) -> tuple[list[tuple[Floats, Floats]], str]:
    """Return what nashpy finds, and the name of the error of a failed part."""
    try:
        import nashpy
    except ImportError as error:
        raise ConfigError("nashpy is missing; install it: pip install 'marec[games]'") from error
    # Strictly positive payoffs of unit range: the polytopes that nashpy enumerates are bounded.
    solver = nashpy.Game(*((m - m.min()) / max(float(np.ptp(m)), 1e-12) + 1.0 for m in payoffs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # degeneracy is reported in the result instead
        found = list(solver.support_enumeration())
        try:
            return found + list(solver.vertex_enumeration()), ""
        except (ValueError, RuntimeError) as error:  # qhull refuses a flat polytope
            return found, type(error).__name__


def _lifted(weights: Floats, actions: list[int], size: int) -> Floats:
    """Return probabilities over some actions as those of all, without rounding errors."""
    whole = np.zeros(size)
    if len(weights) != len(actions):  # nashpy reports its failures so
        return np.full(size, np.nan)
    kept = np.where(np.asarray(weights) < SAME * 1e-3, 0.0, weights)
    whole[actions] = kept / kept.sum() if kept.sum() > 0 else np.nan
    return whole


def _has_spare_best_response(game: NormalFormGame, profile: MixedProfile) -> bool:
    for values, other in zip(game.action_values(profile), reversed(profile), strict=True):
        best = int((values >= values.max() - CHECK * game.scale).sum())
        # The opponent's support bounds the number of best responses of a nondegenerate game.
        if best > int((np.asarray(other) > 0).sum()):
            return True
    return False


MATRIX_GAMES: dict[str, tuple[float, Rows, Callable[[Floats], Floats], tuple[str, ...]]] = {
    # Claus and Boutilier (1998): miscoordination costs k; the optimum lies behind a penalty.
    "penalty": (0.0, lambda k: [[k, 0, 10], [0, 2, 0], [10, 0, k]], np.copy, ()),
    "climbing": (0.0, lambda _: [[11, -30, 0], [-30, 7, 6], [0, 0, 5]], np.copy, ()),
    # Payoffs temptation, 3, 1, 0: selfish play loses two thirds.
    "prisoners-dilemma": (5.0, lambda t: [[3, 0], [t, 1]], np.transpose, ("cooperate", "defect")),
    "chicken": (0.0, lambda _: [[6, 2], [7, 0]], np.transpose, ("yield", "dare")),  # Aumann (1974)
    # Zero-sum, without a pure equilibrium.
    "matching-pennies": (0.0, lambda _: [[1, -1], [-1, 1]], np.negative, ("heads", "tails")),
}
"""Games with known answers by name: the default of their number, from that number to the payoffs of
player 0, from these to those of player 1, and what both call their actions."""


def matrix_game(spec: str) -> NormalFormGame:
    """Return the game named by ``name`` or ``name:number``.

    Raises:
        ConfigError: the name is unknown or the number is not one.
    """
    name, _, number = spec.partition(":")
    if name not in MATRIX_GAMES:
        raise ConfigError(unknown_name("game", name, MATRIX_GAMES))
    default, rows, of_other, names = MATRIX_GAMES[name]
    try:
        value = float(number) if number else default
    except ValueError as error:
        raise ConfigError(f"'{number}' in game '{spec}' is not a number") from error
    if not abs(value) <= LARGEST:
        raise ConfigError(f"'{number}' in game '{spec}' is not between ±{LARGEST:g}")
    first = np.array(rows(value), dtype=np.float64)
    return NormalFormGame(np.stack([first, of_other(first)]), labels=(names, names) * bool(names))


def game_record(game: NormalFormGame) -> dict[str, Any]:
    """Return equilibria, optimum, prices and the exploitability of uniform play, for JSON."""
    found = find_equilibria(game)
    anarchy, stability = efficiency(game, found.profiles)
    optimum, welfare = game.social_optimum()
    uniform = game.uniform()
    return {
        "players": list(game.players),
        "shape": list(game.shape),
        "uniform": {
            "nash_conv": game.nash_conv(uniform),
            "exploitability": game.nash_conv(uniform) / len(game.players),
            "gains": game.gains(uniform).tolist(),
        },
        "equilibria": [
            {
                "kind": "pure" if all(np.max(p) > 1.0 - SHOWN for p in profile) else "mixed",
                "profile": profile_names(game, profile),
                "payoffs": game.expected(profile).tolist(),
                "welfare": game.expected_welfare(profile),
                "nash_conv": game.nash_conv(profile),
            }
            for profile in found.profiles
        ],
        "complete": found.complete,
        "degenerate": found.degenerate,
        "notes": list(found.notes),
        "optimum": {"profile": profile_names(game, game.pure(optimum)), "welfare": welfare},
        "price_of_anarchy": anarchy,
        "price_of_stability": stability,
    }


def profile_names(game: NormalFormGame, profile: MixedProfile) -> dict[str, dict[str, float]]:
    """Return per player the probability of every action it plays."""
    return {
        player: {
            label: float(weight)
            for label, weight in zip(labels, weights, strict=True)
            if weight > SHOWN
        }
        for player, labels, weights in zip(game.players, game.labels, profile, strict=True)
    }


def game_tables(
    name: str, record: Mapping[str, Any], notes: tuple[str, ...] = ()
) -> list[TextTable]:
    """Return a :func:`game_record` as tables; ``notes`` go below the second."""
    equilibria = TextTable(
        f"{name}: {'all' if record['complete'] else 'some'} equilibria",
        ("equilibrium", "kind", "payoffs", "welfare", "NashConv"),
        [
            (
                _profile_text(e["profile"]),
                e["kind"],
                ", ".join(f"{p:.3f}" for p in e["payoffs"]),
                f"{e['welfare']:.3f}",
                f"{abs(e['nash_conv']):.3f}",
            )
            for e in record["equilibria"]
        ],
        record["notes"],
        prose=True,
    )
    uniform = record["uniform"]
    summary = TextTable(
        f"{name}: play and optimum",
        ("measure", "value"),
        [
            ("NashConv of uniform play", f"{uniform['nash_conv']:.3f}"),
            ("best unilateral gains", ", ".join(f"{g:.3f}" for g in uniform["gains"])),
            ("social optimum", _profile_text(record["optimum"]["profile"])),
            ("welfare there", f"{record['optimum']['welfare']:.3f}"),
            ("price of anarchy (worst equilibrium / optimum)", _ratio(record["price_of_anarchy"])),
            ("price of stability (best / optimum)", _ratio(record["price_of_stability"])),
        ],
        notes,
        prose=True,
    )
    return [equilibria, summary]


def _profile_text(profile: Mapping[str, Mapping[str, float]]) -> str:
    return " | ".join(
        " + ".join(
            label if weight > 1.0 - SHOWN else f"{weight:.3f}·{label}"
            for label, weight in weights.items()
        )
        for weights in profile.values()
    )


def _ratio(value: float | None) -> str:
    return "undefined (optimum not positive)" if value is None else f"{value:.3f}"
