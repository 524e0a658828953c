"""Price of anarchy and of stability, measured: selfish play over the joint optimum.

Selfish (or mixed-motive) play is where iterated best responses end, from several starts; the joint
optimum is the best decision that any search found. Ratios are of session means on the same held-out
sessions, with paired bootstrap intervals; 1 says that nothing is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agents.equilibrium.best_response import SearchPlan, Stable, iterated_best_responses
from agents.equilibrium.comparison import joint_search
from agents.equilibrium.decision_game import DecisionGame
from agents.equilibrium.intervals import Interval, bootstrap
from agents.equilibrium.normal_form import Floats

__all__ = ["AnarchyPoint", "measure_anarchy"]

SLACK = 0.01
"""How far stable play may lie above the optimum found before its search is called too small."""


@dataclass(frozen=True, slots=True)
class AnarchyPoint:
    """What a mixture of motives costs in one game."""

    own_share: float
    """λ: 1 is selfish play, 0 shared reward."""
    stable: tuple[Stable, ...]
    """One a start."""
    anarchy: Mapping[str, Interval]
    """Per outcome (``team`` and the user's) the ratio at the stable play of the lowest F."""
    stability: Mapping[str, Interval]
    """The same at the stable play of the highest F."""
    means: Mapping[str, float]
    """Means an outcome at the stable play of the lowest F."""
    warnings: tuple[str, ...]


def measure_anarchy(
    game: DecisionGame,
    plan: SearchPlan,
    own_shares: Sequence[float],
    starts: Sequence[Floats],
    optimum_methods: Sequence[str] = ("cem", "coordinate"),
    max_rounds: int = 8,
) -> tuple[Floats, list[AnarchyPoint]]:
    """Find stable play for each λ and compare it with the joint optimum.

    The optimum's search gets as many evaluations as one round of everybody's best responses at each
    of two starts: the default decision and the best stable play. It is the best, on the training
    sessions, of these and of every stable play itself, since a cooperative team could always play
    that.

    Args:
        game: the game.
        plan: sessions, budget and seeds of every search.
        own_shares: the λ.
        starts: where iterated best responses begin, ``[D]`` each.
        optimum_methods: joint searches that look for the optimum.
        max_rounds: of best responses.

    Returns:
        The optimum's decision ``[D]``, and a point for each λ.
    """
    plays = {
        share: tuple(
            iterated_best_responses(game, start, plan, share, max_rounds) for start in starts
        )
        for share in own_shares
    }
    candidates = [game.default()] + [s.decision for stables in plays.values() for s in stables]
    candidates.append(_best_team(game, candidates, plan))
    joint_budget = plan.budget * len(game.components)
    for method in optimum_methods:
        for start in (candidates[0], candidates[-1]):
            joint = replace(plan, method=method, budget=joint_budget)
            found = joint_search(game, joint, start=start)
            candidates.append(found.decision)
    optimum = _best_team(game, candidates, plan)
    return optimum, [
        _point(game, plan, share, stables, optimum) for share, stables in plays.items()
    ]


def _best_team(game: DecisionGame, candidates: Sequence[Floats], plan: SearchPlan) -> Floats:
    worth = [game.play(c[None], plan.train).team.mean() for c in candidates]
    return candidates[int(np.argmax(worth))]


def _point(
    game: DecisionGame,
    plan: SearchPlan,
    own_share: float,
    stables: tuple[Stable, ...],
    optimum: Floats,
) -> AnarchyPoint:
    outcome = game.play(np.stack([optimum, *(s.decision for s in stables)]), plan.held_out)
    values = {"team": outcome.team, **outcome.outcomes}
    worth = outcome.team[1:].mean(axis=1)
    worst, best = 1 + int(worth.argmin()), 1 + int(worth.argmax())
    warnings = [s.warning for s in stables if s.warning]
    warnings += [r.warning for s in stables for r in s.responses if r.warning]
    stability = _ratios(values, best)
    if stability["team"].value > 1.0 + SLACK:
        warnings.append(
            "stable play beats the optimum found on held-out sessions (ratio "
            f"{stability['team']}): the search for the optimum was too small; raise the budget or "
            "the sessions"
        )
    return AnarchyPoint(
        own_share=own_share,
        stable=stables,
        anarchy=_ratios(values, worst),
        stability=stability,
        means={name: float(v[worst].mean()) for name, v in values.items()},
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _ratios(values: Mapping[str, Floats], row: int) -> dict[str, Interval]:
    """Return the ratio of means of a row to the optimum's, which is row 0; NaN if that is ≤ 0."""

    def ratio(means: Mapping[str, Floats]) -> dict[str, float]:
        return {
            name: float(pair[1] / pair[0]) if pair[0] > 0 else float("nan")
            for name, pair in means.items()
        }

    return bootstrap({name: v[[0, row]].T for name, v in values.items()}, ratio)
