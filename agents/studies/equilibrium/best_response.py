"""Best responses of one component to frozen others, and play that is stable against them.

A searched best response is a lower bound of the true one: the report says whether more budget
still helped. Candidates are chosen on training sessions and judged on others, paired with the
frozen play.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from agents.studies.equilibrium import search
from agents.studies.equilibrium.decision_game import (
    Criterion,
    DecisionGame,
    Outcome,
    Sessions,
    block,
    mixed_objective,
)
from agents.studies.equilibrium.intervals import Interval, mean_interval
from agents.studies.equilibrium.normal_form import Floats

__all__ = [
    "BestResponse",
    "SearchPlan",
    "Stable",
    "best_response",
    "iterated_best_responses",
    "search_warning",
]

_ROUND = 1_000  # search seeds of two rounds are this far apart

SETTLED_SHARE = 0.1
"""A gain has settled if the second half of the budget added at most this share of it (or less than
half its interval)."""


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """How responses are searched and judged; equal for all components and methods."""

    train: Sessions
    """Sessions on which candidates are compared."""
    held_out: Sessions
    """Sessions on which the chosen one is judged."""
    budget: int = 192
    """Evaluations a search."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Search seeds; the best on the training sessions is taken."""
    method: str = "cem"


@dataclass(frozen=True, slots=True)
class BestResponse:
    """What one component gains by deviating alone."""

    component: str
    decision: Floats
    """``[d_i]``."""
    gain: Interval
    """Under the criterion it maximised, a session, on held-out sessions, paired."""
    gain_own: Interval
    """Under its own f_i."""
    gain_team: Interval
    """Under F: negative where the gain is taken from the team."""
    by_seed: tuple[float, ...]
    """Mean held-out gain of each search seed's own winner."""
    half_budget: float
    """Mean held-out gain of the best point at half the budget."""
    warning: str | None


def search_warning(
    gain: Interval, half: float, by_seed: Sequence[float], train_gain: float
) -> str | None:
    """Return why a gain may be far from that of the true best response, or ``None``.

    Args:
        gain: on held-out sessions.
        half: the same at half the budget.
        by_seed: the same of each seed's response.
        train_gain: the mean on the sessions that the response was searched on.
    """
    if train_gain > gain.high:
        return (
            f"fitted to its sessions: {train_gain:.3f} on them, {gain} on others; raise the "
            "sessions of searches"
        )
    slack = max(SETTLED_SHARE * abs(gain.value), (gain.high - gain.low) / 2.0)
    if gain.value - half > slack:
        return (
            f"not settled: half the budget gained {half:.3f}, all of it {gain.value:.3f}; "
            "raise the budget"
        )
    if len(by_seed) > 1 and max(by_seed) - float(np.median(by_seed)) > slack:
        return (
            f"seeds disagree: from {min(by_seed):.3f} to {max(by_seed):.3f}; "
            "raise the budget or the seeds"
        )
    return None


def _with_block(base: Floats, where: slice, points: Floats) -> Floats:
    whole = np.repeat(base[None], len(points), axis=0)
    whole[:, where] = points
    return whole


def best_response(
    game: DecisionGame,
    component: int,
    decision: Floats,
    criterion: Criterion,
    plan: SearchPlan,
) -> BestResponse:
    """Search the decision of one component that maximises ``criterion``, the others frozen.

    Args:
        game: the game.
        component: its index.
        decision: ``[D]``, everybody's current decision.
        criterion: what the component maximises.
        plan: sessions, budget, seeds, method.
    """
    where = block(game, component)

    def score(points: Floats) -> Floats:
        outcome = game.play(_with_block(decision, where, points), plan.train)
        return np.asarray(criterion(outcome).mean(axis=1))

    start, width = decision[where], game.dims[component]
    found = [
        search.run(
            search.SEARCHES.get(plan.method),
            score,
            plan.budget,
            start,
            (slice(0, width),),
            seed,
        )
        for seed in plan.seeds
    ]
    best = max(range(len(found)), key=lambda i: found[i].value)
    judged = np.stack([start, found[best].half, *(f.best for f in found)])
    outcome = game.play(_with_block(decision, where, judged), plan.held_out)
    values = criterion(outcome)
    means = (values - values[0]).mean(axis=1)
    gain = mean_interval(values[2 + best] - values[0])
    by_seed = tuple(float(m) for m in means[2:])
    train_gain = found[best].value - float(score(start[None])[0])
    return BestResponse(
        component=game.components[component],
        decision=found[best].best,
        gain=gain,
        gain_own=_gain(outcome, 2 + best, outcome.objectives[..., component]),
        gain_team=_gain(outcome, 2 + best, outcome.team),
        by_seed=by_seed,
        half_budget=float(means[1]),
        warning=search_warning(gain, float(means[1]), by_seed, train_gain),
    )


def _gain(outcome: Outcome, row: int, values: Floats) -> Interval:
    return mean_interval(values[row] - values[0])


@dataclass(frozen=True, slots=True)
class Stable:
    """Where iterated best responses ended."""

    decision: Floats
    """``[D]``."""
    rounds: int
    settled: bool
    """Whether in the last round nobody gained beyond its interval or the tolerance."""
    history: tuple[Floats, ...]
    """The decision after each round."""
    responses: tuple[BestResponse, ...]
    """Of the last round, one a component: their gains are what is left to gain."""
    warning: str | None


def iterated_best_responses(
    game: DecisionGame,
    start: Floats,
    plan: SearchPlan,
    own_share: float = 1.0,
    max_rounds: int = 8,
    tolerance: float = 0.01,
) -> Stable:
    """Let components respond in turn until nobody gains.

    A component moves only if its response gains on the held-out sessions, so that search noise
    moves nobody. Play is stable when in a full round no gain has an interval above zero and a
    value above ``tolerance`` of the component's criterion.

    Args:
        game: the game.
        start: ``[D]``.
        plan: the same for every component.
        own_share: λ of what a component maximises, λ f_i + (1 − λ) F.
        max_rounds: after how many rounds to give up.
        tolerance: relative gain that counts as none.
    """
    decision = np.asarray(start, dtype=np.float64).copy()
    history: list[Floats] = []
    responses: list[BestResponse] = []
    settled = False
    while len(history) < max_rounds and not settled:
        responses, settled = [], True
        # Searches that failed are not repeated but tried elsewhere, so that play counts as stable
        # only when new ones find nothing either.
        fresh = replace(plan, seeds=tuple(s + len(history) * _ROUND for s in plan.seeds))
        for component in range(len(game.components)):
            criterion = mixed_objective(component, own_share)
            response = best_response(game, component, decision, criterion, fresh)
            responses.append(response)
            current = criterion(game.play(decision[None], plan.held_out)).mean()
            worth_it = response.gain.low > 0.0
            if worth_it:
                decision[block(game, component)] = response.decision
            if worth_it and response.gain.value > tolerance * abs(float(current)):
                settled = False
        history.append(decision.copy())
    warning = None
    if not settled:
        left = ", ".join(f"{r.component} {r.gain}" for r in responses)
        warning = f"not stable after {max_rounds} rounds; gains of the last round: {left}"
    return Stable(decision, len(history), settled, tuple(history), tuple(responses), warning)
