"""What a component of a learned team gains by deviating: the team's exploitability.

The team's other components keep playing their policies. The deviator plays the best response that
a search over static decisions, or a learner, found under the stated budget. Either bounds the true
gain from below; a negative gain says that the response found is worse than what is played.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agents.baselines.teams import StaticTeam
from agents.studies.equilibrium import search
from agents.studies.equilibrium.action_cube import coordinates, decode, encode
from agents.studies.equilibrium.best_response import SearchPlan, search_warning
from agents.studies.equilibrium.cross_fitting import chosen_by_other_half
from agents.studies.equilibrium.decision_game import Outcome, Sessions
from agents.studies.equilibrium.intervals import Interval, mean_interval
from agents.studies.equilibrium.lineups import Lineup, ReplayEnv, play_lineups
from agents.studies.equilibrium.normal_form import Floats
from marec_env.evaluation.policies import TeamPolicy
from marec_env.vector import Action

__all__ = ["PolicyResponse", "judge_responses", "nash_conv_interval", "static_response"]


@dataclass(frozen=True, slots=True)
class PolicyResponse:
    """The best deviation found for one component."""

    component: str
    method: str
    budget: str
    """In words, with its unit."""
    gain: Interval
    """Under what the deviator maximised, a session, paired on held-out sessions."""
    gain_own: Interval
    gain_team: Interval
    gain_outcomes: Mapping[str, Interval]
    """What the deviation does to the users."""
    train_gain: float
    """Mean gain on the training sessions."""
    by_seed: tuple[float, ...]
    """Mean held-out gain of each seed's response."""
    half_budget: float
    """Mean held-out gain at half the budget."""
    warning: str | None
    gain_samples: Floats
    """``[S]``: the paired gains themselves, for sums over components."""


def _criterion(outcome: Outcome, own_share: float) -> Floats:
    """Return λ f_i + (1 − λ) F, ``[P, S]``, of an outcome of one component."""
    return own_share * outcome.objectives[..., 0] + (1.0 - own_share) * outcome.team


def _deviations(
    env: ReplayEnv, team: TeamPolicy, component: str, responses: Sequence[TeamPolicy]
) -> list[Lineup]:
    return [
        {agent: response if agent == component else team for agent in env.agents}
        for response in responses
    ]


def static_response(
    env: ReplayEnv,
    team: TeamPolicy,
    component: str,
    default: Action,
    plan: SearchPlan,
    own_share: float = 1.0,
) -> PolicyResponse:
    """Search the static action of ``component`` that answers the rest of a team best.

    Args:
        env: the environment.
        team: plays all other components, and the one in question before it deviates.
        component: the deviator.
        default: its default action, where the search starts.
        plan: sessions, budget, seeds, method.
        own_share: λ.
    """
    space = env.action_spaces[component]

    def fixed(point: Floats) -> TeamPolicy:
        return StaticTeam({component: decode(space, point)})

    def score(points: Floats) -> Floats:
        lineups = _deviations(env, team, component, [fixed(p) for p in points])
        outcome = play_lineups(env, lineups, plan.train, (component,))
        return np.asarray(_criterion(outcome, own_share).mean(axis=1))

    found = [
        search.run(
            search.SEARCHES.get(plan.method),
            score,
            plan.budget,
            encode(space, default),
            (slice(0, coordinates(space)),),
            seed,
        )
        for seed in plan.seeds
    ]
    best = max(range(len(found)), key=lambda i: found[i].value)
    present = play_lineups(env, _deviations(env, team, component, [team]), plan.train, (component,))
    return _judged(
        env,
        team,
        component,
        [fixed(f.best) for f in found],
        fixed(found[best].half),
        best,
        plan.held_out,
        own_share,
        found[best].value - float(_criterion(present, own_share).mean()),
        f"static, {plan.method}",
        f"{plan.budget} evaluations × {len(plan.train)} sessions × {len(plan.seeds)} seeds",
    )


def judge_responses(
    env: ReplayEnv,
    team: TeamPolicy,
    component: str,
    finals: Sequence[TeamPolicy],
    halves: Sequence[TeamPolicy],
    plan: SearchPlan,
    own_share: float,
    method: str,
    budget: str,
) -> PolicyResponse:
    """Judge learned responses: the best seed on training sessions, measured on held-out ones.

    Args:
        env: the environment.
        team: as in :func:`static_response`.
        component: the deviator.
        finals: one trained response a seed.
        halves: the same at half of the budget.
        plan: sessions.
        own_share: λ that the responses maximised.
        method: in reports.
        budget: in reports.
    """
    lineups = _deviations(env, team, component, [team, *finals])
    values = _criterion(play_lineups(env, lineups, plan.train, (component,)), own_share)
    means = values.mean(axis=1)
    best = int(means[1:].argmax())
    return _judged(
        env,
        team,
        component,
        finals,
        halves[best],
        best,
        plan.held_out,
        own_share,
        float(means[1 + best] - means[0]),
        method,
        budget,
    )


def _judged(
    env: ReplayEnv,
    team: TeamPolicy,
    component: str,
    finals: Sequence[TeamPolicy],
    half: TeamPolicy,
    best: int,
    held_out: Sessions,
    own_share: float,
    train_gain: float,
    method: str,
    budget: str,
) -> PolicyResponse:
    lineups = _deviations(env, team, component, [team, half, *finals])
    outcome = play_lineups(env, lineups, held_out, (component,))
    values = _criterion(outcome, own_share)
    row = 2 + best
    gain = mean_interval(values[row] - values[0])
    means = (values - values[0]).mean(axis=1)
    by_seed = tuple(float(m) for m in means[2:])
    own_values = outcome.objectives[..., 0]
    return PolicyResponse(
        component=component,
        method=method,
        budget=budget,
        gain=gain,
        gain_own=mean_interval(own_values[row] - own_values[0]),
        gain_team=mean_interval(outcome.team[row] - outcome.team[0]),
        gain_outcomes={name: mean_interval(v[row] - v[0]) for name, v in outcome.outcomes.items()},
        train_gain=train_gain,
        by_seed=by_seed,
        half_budget=float(means[1]),
        warning=search_warning(gain, float(means[1]), by_seed, train_gain),
        gain_samples=values[row] - values[0],
    )


def nash_conv_interval(responses: Sequence[Sequence[PolicyResponse]]) -> Interval:
    """Return the sum over components of what deviating gains them, with Student's interval.

    Whether a component deviates, and by which of the responses found, is decided on one half of the
    sessions and paid on the other (see the module ``cross_fitting``): the sum of largest
    means would lie above zero at an exact equilibrium. Crossed over, it may fall below by chance.

    Args:
        responses: of each component all that were found, judged on the same sessions.
    """
    samples = []
    for found in responses:
        stay = np.zeros_like(found[0].gain_samples)
        gains = np.stack([stay, *(r.gain_samples for r in found)], axis=1)
        samples.append(gains[np.arange(len(gains)), chosen_by_other_half(gains)])
    return mean_interval(np.sum(samples, axis=0))
