"""Price of anarchy and of stability, measured: selfish play over the joint optimum.

Selfish (or mixed-motive) play is where iterated best responses end, from several starts; the joint
optimum is the best decision that any search found. Ratios are of session means on the same held-out
sessions, with paired bootstrap intervals; 1 says that nothing is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agents.studies.equilibrium.best_response import SearchPlan, Stable, iterated_best_responses
from agents.studies.equilibrium.comparison import joint_search
from agents.studies.equilibrium.decision_game import DecisionGame
from agents.studies.equilibrium.intervals import Interval, bootstrap
from agents.studies.equilibrium.normal_form import Floats

__all__ = ["AnarchyPoint", "Optimum", "measure_anarchy"]

SLACK = 0.01
"""How far stable play may lie above the optimum found before its search is called too small."""


@dataclass(frozen=True, slots=True)
class Optimum:
    """The best decision for the team that any search found."""

    decision: Floats
    """``[D]``."""
    means: Mapping[str, float]
    """Means an outcome (``team`` and the user's) on held-out sessions."""


@dataclass(frozen=True, slots=True)
class AnarchyPoint:
    """What a mixture of motives costs in one game."""

    own_share: float
    """λ: 1 is selfish play, 0 shared reward."""
    stable: tuple[Stable, ...]
    """One a start."""
    anarchy: Mapping[str, Interval]
    """Per outcome (``team`` and the user's) the ratio at the play of the lowest F, of those that
    settled (of all, if none did)."""
    stability: Mapping[str, Interval]
    """The same at the play of the highest F."""
    means: tuple[Mapping[str, float], ...]
    """Means an outcome at each play in ``stable``."""
    warnings: tuple[str, ...]


def measure_anarchy(
    game: DecisionGame,
    plan: SearchPlan,
    own_shares: Sequence[float],
    starts: Sequence[Floats],
    optimum_methods: Sequence[str] = ("cem", "coordinate"),
    max_rounds: int = 8,
    from_optimum: bool = False,
) -> tuple[Optimum, list[AnarchyPoint]]:
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
        from_optimum: whether they also begin at the best decision of the first joint searches,
            which is where an equilibrium that costs nothing would be.

    Returns:
        The optimum, and a point for each λ.
    """

    def searched(start: Floats) -> list[Floats]:
        budget = plan.budget * len(game.components)
        joint = [replace(plan, method=method, budget=budget) for method in optimum_methods]
        return [joint_search(game, one, start=start).decision for one in joint]

    candidates = [game.default()]
    candidates += searched(candidates[0])
    if from_optimum:
        starts = [*starts, _best_team(game, candidates, plan)]
    plays = {
        share: tuple(
            iterated_best_responses(game, start, plan, share, max_rounds) for start in starts
        )
        for share in own_shares
    }
    stable = [s.decision for stables in plays.values() for s in stables]
    candidates += [*stable, *searched(_best_team(game, stable, plan))]
    decision = _best_team(game, candidates, plan)
    played = game.play(decision[None], plan.held_out)
    means = {"team": played.team.mean()} | {k: v.mean() for k, v in played.outcomes.items()}
    optimum = Optimum(decision, {name: float(mean) for name, mean in means.items()})
    return optimum, [
        _point(game, plan, share, stables, decision) for share, stables in plays.items()
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
    rows = [row for row, s in enumerate(stables, 1) if s.settled] or [*range(1, 1 + len(stables))]
    worth = outcome.team.mean(axis=1)
    worst, best = min(rows, key=lambda row: worth[row]), max(rows, key=lambda row: worth[row])
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
        means=tuple(
            {name: float(v[row].mean()) for name, v in values.items()}
            for row in range(1, 1 + len(stables))
        ),
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
