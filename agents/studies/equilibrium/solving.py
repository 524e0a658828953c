"""Equilibria of games in normal form, as records and tables.

Nash equilibria of two players come from nashpy (``pip install marec[games]``). In a correlated
equilibrium a mediator draws a pure profile and tells each player its part; nobody gains by doing
otherwise (Aumann, "Subjectivity and correlation in randomized strategies", 1974). Their set is a
polytope, so the best and the worst welfare in it are linear programmes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linprog

from agents.studies.equilibrium.normal_form import (
    Floats,
    MixedProfile,
    NormalFormGame,
    efficiency,
)
from marec_env.errors import ConfigError
from marec_env.reporting.table import TextTable

__all__ = [
    "ENUMERATION_LIMIT",
    "Equilibria",
    "correlated_welfare",
    "find_equilibria",
    "game_record",
    "game_tables",
    "profile_names",
    "undominated",
]

ENUMERATION_LIMIT = 8
"""Actions a player, after elimination of dominated ones, up to which enumeration is exhaustive; it
visits up to 4^8 pairs of supports (seconds), and sixteen times as many for two more actions."""
CHECK = 1e-6  # relative gain above which an equilibrium handed back by the solver is refused
SAME = 1e-5  # largest difference of probabilities at which two equilibria are the same
SHOWN = 1e-6  # probabilities below this are not printed


@dataclass(frozen=True, slots=True)
class Equilibria:
    """Equilibria of a game, and what is known about the list."""

    profiles: tuple[MixedProfile, ...]
    complete: bool
    """Whether the list holds every equilibrium (of a degenerate game: every extreme one)."""
    degenerate: bool
    """Whether some equilibrium has more best responses than actions played: there may be a
    continuum, of which the list holds the end points."""
    notes: tuple[str, ...] = ()


def find_equilibria(game: NormalFormGame) -> Equilibria:
    """Return the game's equilibria.

    Two players: all of them (support and vertex enumeration after removing strictly dominated
    actions), up to :data:`ENUMERATION_LIMIT` actions each. Otherwise the pure ones only.

    Raises:
        ConfigError: nashpy is missing.
    """
    pure = [game.pure(actions) for actions in game.pure_equilibria()]
    if game.num_players != 2:
        return Equilibria(
            tuple(pure), False, False, ("pure equilibria only: mixed ones need two players",)
        )
    keep = undominated(game)
    # The one action's opponent mixes its best responses; the end points of that are pure.
    found: list[tuple[Floats, Floats]] = []
    notes = []
    complete = max(map(len, keep)) <= ENUMERATION_LIMIT or min(map(len, keep)) == 1
    if not complete:
        notes.append(
            f"{len(keep[0])} × {len(keep[1])} undominated actions: above {ENUMERATION_LIMIT} a "
            "player only pure equilibria are listed"
        )
    elif min(map(len, keep)) > 1:
        found, failed = _enumerated(game, keep)
        if failed:
            complete = False
            notes.append(f"vertex enumeration failed ({failed})")
    lifted = [_lift(pair, keep, game.shape) for pair in found]
    profiles = _distinct(game, [*pure, *(pair for pair in lifted if pair is not None)])
    degenerate = any(_has_spare_best_response(game, profile) for profile in profiles)
    if degenerate:
        notes.append("degenerate game: end points of continua of equilibria are listed")
    return Equilibria(tuple(profiles), complete, degenerate, tuple(notes))


def undominated(game: NormalFormGame) -> tuple[list[int], list[int]]:
    """Return per player the actions of a bimatrix game that survive iterated elimination.

    An action goes if another pure action pays strictly more against everything that is left; no
    equilibrium plays it.
    """
    keep = [list(range(size)) for size in game.shape]
    shrinking = True
    while shrinking:
        shrinking = False
        for player in range(2):
            values = game.payoffs[player][np.ix_(*keep)]
            rows = values if player == 0 else values.T
            beaten = [bool((rows > row).all(axis=1).any()) for row in rows]
            if any(beaten):
                keep[player] = [a for a, b in zip(keep[player], beaten, strict=True) if not b]
                shrinking = True
    return keep[0], keep[1]


def _enumerated(
    game: NormalFormGame, keep: tuple[list[int], list[int]]
) -> tuple[list[tuple[Floats, Floats]], str]:
    """Return equilibria over the kept actions, and the name of the error of a failed part."""
    try:
        import nashpy
    except ImportError as error:
        raise ConfigError("nashpy is missing; install it: pip install 'marec[games]'") from error
    # Strictly positive payoffs of unit range: the polytopes that nashpy enumerates are bounded.
    left, right = (
        (m - m.min()) / max(float(np.ptp(m)), 1e-12) + 1.0
        for m in (game.payoffs[i][np.ix_(*keep)] for i in range(2))
    )
    solver = nashpy.Game(left, right)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # degeneracy is reported in the result instead
        found = list(solver.support_enumeration())
        try:
            return found + list(solver.vertex_enumeration()), ""
        except (ValueError, RuntimeError) as error:  # qhull refuses a flat polytope
            return found, type(error).__name__


def _lift(
    pair: tuple[Floats, Floats], keep: tuple[list[int], list[int]], shape: tuple[int, ...]
) -> list[Floats] | None:
    """Put probabilities over surviving actions back among all; ``None`` for a malformed pair."""
    lifted = []
    for weights, actions, size in zip(pair, keep, shape, strict=True):
        weights = np.asarray(weights, dtype=np.float64)
        if weights.shape != (len(actions),) or not np.isfinite(weights).all():
            return None
        weights = np.where(weights < SAME * 1e-3, 0.0, weights)
        if weights.sum() <= 0:
            return None
        whole = np.zeros(size)
        whole[actions] = weights / weights.sum()
        lifted.append(whole)
    return lifted


def _distinct(game: NormalFormGame, profiles: Iterable[MixedProfile]) -> list[MixedProfile]:
    kept: list[MixedProfile] = []
    for profile in profiles:
        known = any(
            max(np.abs(a - b).max() for a, b in zip(profile, other, strict=True)) < SAME
            for other in kept
        )
        if not known and game.is_equilibrium(profile, CHECK):
            kept.append(profile)
    return kept


def _has_spare_best_response(game: NormalFormGame, profile: MixedProfile) -> bool:
    for player in range(game.num_players):
        values = game.action_values(player, profile)
        best = int((values >= values.max() - CHECK * game.scale).sum())
        # The opponent's support bounds the number of best responses of a nondegenerate game.
        if best > int((np.asarray(profile[1 - player]) > 0).sum()):
            return True
    return False


def correlated_welfare(game: NormalFormGame) -> dict[str, float]:
    """Return the welfare of the ``best`` and of the ``worst`` correlated equilibrium.

    Raises:
        RuntimeError: the solver failed (a correlated equilibrium always exists).
    """
    rows = []  # what a deviation from a told action to another gains, at each pure profile
    for player, size in enumerate(game.shape):
        values = np.moveaxis(game.payoffs[player], player, 0)
        for told in range(size):
            for done in set(range(size)) - {told}:
                gain = np.zeros_like(values)
                gain[told] = values[done] - values[told]
                rows.append(np.moveaxis(gain, 0, player).ravel())
    found = {}
    for name, sign in (("best", -1.0), ("worst", 1.0)):
        solved = linprog(
            sign * game.welfare.ravel(),
            A_ub=np.array(rows) / game.scale if rows else None,
            b_ub=np.zeros(len(rows)) if rows else None,
            A_eq=np.ones((1, game.welfare.size)),
            b_eq=[1.0],
            bounds=(0.0, 1.0),
            method="highs",
        )
        if not solved.success:
            raise RuntimeError(f"no correlated equilibrium found: {solved.message}")
        weights = np.clip(np.asarray(solved.x), 0.0, None)
        found[name] = float((weights / weights.sum() * game.welfare.ravel()).sum())
    return found


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
            "exploitability": game.exploitability(uniform),
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
        "correlated": correlated_welfare(game),
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
    uniform, correlated = record["uniform"], record["correlated"]
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
            (
                "correlated equilibria, worst … best welfare",
                f"{correlated['worst']:.3f} … {correlated['best']:.3f}",
            ),
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
