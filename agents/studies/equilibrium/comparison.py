"""When does learning pay? Cooperative optimisers of one decision under one evaluation budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agents.studies.equilibrium import search
from agents.studies.equilibrium.best_response import SearchPlan
from agents.studies.equilibrium.decision_game import Criterion, DecisionGame, block, team
from agents.studies.equilibrium.intervals import Interval, mean_interval
from agents.studies.equilibrium.normal_form import Floats

__all__ = ["MethodResult", "compare_methods", "joint_search"]


@dataclass(frozen=True, slots=True)
class MethodResult:
    """One method's winner, judged on held-out sessions."""

    method: str
    decision: Floats
    """``[D]``: of the seed that was best on the training sessions."""
    value: Interval
    """The criterion a session."""
    over_default: Interval
    """Minus that of the default decision, paired."""
    by_seed: tuple[float, ...]
    """Held-out mean of each seed's winner: what one run is worth, and the spread."""
    half_budget: float
    """Held-out mean of the best point at half the budget."""
    outcomes: dict[str, float]
    """Mean user outcomes."""


def joint_search(
    game: DecisionGame,
    plan: SearchPlan,
    criterion: Criterion = team,
    start: Floats | None = None,
) -> MethodResult:
    """Search all components' decisions together for the highest ``criterion``.

    Args:
        game: the game.
        plan: sessions, budget, seeds and the method.
        criterion: F unless given.
        start: ``[D]``; the default decision unless given.
    """
    default = game.default()
    first = default if start is None else start
    blocks = [block(game, i) for i in range(len(game.components))]

    def score(points: Floats) -> Floats:
        return np.asarray(criterion(game.play(points, plan.train)).mean(axis=1))

    found = [
        search.run(search.SEARCHES.get(plan.method), score, plan.budget, first, blocks, seed)
        for seed in plan.seeds
    ]
    best = max(range(len(found)), key=lambda i: found[i].value)
    judged = np.stack([default, found[best].half, *(f.best for f in found)])
    outcome = game.play(judged, plan.held_out)
    values = criterion(outcome)
    return MethodResult(
        method=plan.method,
        decision=found[best].best,
        value=mean_interval(values[2 + best]),
        over_default=mean_interval(values[2 + best] - values[0]),
        by_seed=tuple(float(v) for v in values[2:].mean(axis=1)),
        half_budget=float(values[1].mean()),
        outcomes={k: float(v[2 + best].mean()) for k, v in outcome.outcomes.items()},
    )


def compare_methods(
    game: DecisionGame, plan: SearchPlan, methods: Sequence[str] = ()
) -> list[MethodResult]:
    """Run every method (all registered unless given) under the same plan, best first."""
    results = [
        joint_search(
            game,
            SearchPlan(plan.train, plan.held_out, plan.budget, plan.seeds, method),
        )
        for method in (methods or search.SEARCHES.names())
    ]
    return sorted(results, key=lambda result: -result.value.value)
