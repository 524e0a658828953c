"""All Nash equilibria of two-player games, through nashpy (``pip install marec[games]``)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from agents.studies.equilibrium.normal_form import Floats, MixedProfile, NormalFormGame
from marec_env.errors import ConfigError

__all__ = ["Equilibria", "find_equilibria"]

ENUMERATION_LIMIT = 8
"""Actions a player, after elimination of dominated ones, up to which enumeration is exhaustive; it
visits up to 4^8 pairs of supports (seconds), and sixteen times as many for two more actions."""
CHECK = 1e-6  # relative gain above which an equilibrium handed back by the solver is refused
SAME = 1e-5  # largest difference of probabilities at which two equilibria are the same


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
    actions), or, above :data:`ENUMERATION_LIMIT` actions, the pure ones and those that
    Lemke-Howson reaches. More players: the pure ones only.

    Raises:
        ConfigError: nashpy is missing.
    """
    pure = [game.pure(actions) for actions in game.pure_equilibria()]
    if game.num_players != 2:
        return Equilibria(
            tuple(pure), False, False, ("pure equilibria only: mixed ones need two players",)
        )
    try:
        import nashpy
    except ImportError as error:
        raise ConfigError("nashpy is missing; install it: pip install 'marec[games]'") from error
    keep = undominated(game)
    # Strictly positive payoffs of unit range: the polytopes that nashpy enumerates are bounded.
    left, right = (
        (m - m.min()) / max(float(np.ptp(m)), 1e-12) + 1.0
        for m in (game.payoffs[i][np.ix_(*keep)] for i in range(2))
    )
    solver = nashpy.Game(left, right)
    exhaustive = min(left.shape) == 1 or max(left.shape) <= ENUMERATION_LIMIT
    notes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # degeneracy is reported in the result instead
        if min(left.shape) == 1:
            found = []  # the other mixes its best responses; the end points of that are pure
        elif exhaustive:
            found = list(solver.support_enumeration())
            try:
                found += list(solver.vertex_enumeration())
            except (ValueError, RuntimeError) as error:  # qhull refuses a flat polytope
                exhaustive = False
                notes.append(f"vertex enumeration failed ({type(error).__name__})")
        else:
            found = _lemke_howson(solver, sum(left.shape))
            notes.append(
                f"{left.shape[0]} × {left.shape[1]} undominated actions: above "
                f"{ENUMERATION_LIMIT} a player only pure equilibria and those found by "
                "Lemke-Howson are listed"
            )
    lifted = [_lift(pair, keep, game.shape) for pair in found]
    profiles = _distinct(game, [*pure, *(pair for pair in lifted if pair is not None)])
    degenerate = any(_has_spare_best_response(game, profile) for profile in profiles)
    if degenerate:
        notes.append("degenerate game: end points of continua of equilibria are listed")
    return Equilibria(tuple(profiles), exhaustive, degenerate, tuple(notes))


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


def _lemke_howson(solver: object, labels: int) -> list[tuple[Floats, Floats]]:
    found = []
    for label in range(labels):
        try:
            found.append(solver.lemke_howson(initial_dropped_label=label))  # type: ignore[attr-defined]
        except (ValueError, IndexError, ZeroDivisionError):  # a degenerate pivot: try the next
            continue
    return found


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
