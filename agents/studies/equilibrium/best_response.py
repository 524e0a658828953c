"""Best responses of one component to frozen others, and play that is stable against them.

A response that was searched or learned is a lower bound of the true best one: the report says
whether more budget still helped. Candidates are chosen on training sessions and judged on others,
paired with what is played; a negative gain says that the response found is worse than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from agents.baselines.teams import StaticTeam
from agents.studies.equilibrium.decisions import DecisionGame, block, decode, encode
from agents.studies.equilibrium.lineups import Payoffs, Replay, Sessions, play_lineups
from agents.studies.equilibrium.normal_form import Floats
from agents.studies.equilibrium.search import search
from marec_env.evaluation.policies import TeamPolicy
from marec_env.evaluation.statistics import Estimate, mean_estimate
from marec_env.vector import Action

__all__ = [
    "BestResponse",
    "SearchPlan",
    "Stable",
    "best_response",
    "chosen_by_other_half",
    "iterated_best_responses",
    "judge_policies",
    "nash_conv",
    "search_warning",
    "static_response",
]

_ROUND = 1_000  # search seeds of two rounds are this far apart

SETTLED_SHARE = 0.1
"""A gain has settled if the second half of the budget added at most this share of it (or less than
half its interval)."""


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """How responses are searched and judged; equal for all components."""

    train: Sessions
    """Sessions on which candidates are compared."""
    held_out: Sessions
    """Sessions on which the chosen one is judged."""
    budget: int = 192
    """Evaluations a search."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Search seeds; the best on the training sessions is taken."""


@dataclass(frozen=True, slots=True)
class BestResponse:
    """What one component gains by deviating alone; gains are of held-out sessions, paired."""

    component: str
    gain: Estimate
    """Under what the deviator maximised, a session."""
    gain_own: Estimate
    """Under its own f_i."""
    gain_team: Estimate
    """Under F: negative where the gain is taken from the team."""
    gain_outcomes: Mapping[str, Estimate]
    """What the deviation does to the users."""
    train_gain: float
    """Mean gain on the training sessions."""
    by_seed: tuple[float, ...]
    """Mean gain of each seed's own winner."""
    half_budget: float
    """Mean gain of the best point at half the budget."""
    warning: str | None
    gain_samples: Floats = field(repr=False)
    """``[S]``: the paired gains themselves, for sums over components."""
    decision: Floats | None = field(default=None, repr=False)
    """``[d_i]`` of a searched response."""


def _judged(
    name: str,
    played: Payoffs,
    component: int,
    own_share: float,
    best: int,
    train_gain: float,
    decision: Floats | None = None,
) -> BestResponse:
    """Judge responses by held-out play.

    Args:
        name: of the deviator.
        played: rows are what is played now, the best response at half the budget, and each seed's.
        component: the deviator's place among the objectives.
        own_share: λ that the responses maximised.
        best: the seed that was best on the training sessions.
        train_gain: its mean gain there.
        decision: of the best seed.
    """
    row = 2 + best
    values = played.mixed(component, own_share)
    means = (values - values[0]).mean(axis=1)
    samples = values[row] - values[0]
    gain, half, by_seed = mean_estimate(samples), float(means[1]), tuple(map(float, means[2:]))
    own = played.objectives[..., component]
    return BestResponse(
        component=name,
        gain=gain,
        gain_own=mean_estimate(own[row] - own[0]),
        gain_team=mean_estimate(played.team[row] - played.team[0]),
        gain_outcomes={k: mean_estimate(v[row] - v[0]) for k, v in played.outcomes.items()},
        train_gain=train_gain,
        by_seed=by_seed,
        half_budget=half,
        warning=search_warning(gain, half, by_seed, train_gain),
        gain_samples=samples,
        decision=decision,
    )


def search_warning(
    gain: Estimate, half: float, by_seed: Sequence[float], train_gain: float
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


def best_response(
    game: DecisionGame, component: int, decision: Floats, plan: SearchPlan, own_share: float = 1.0
) -> BestResponse:
    """Search the decision of one component that maximises λ f_i + (1 − λ) F, the others frozen.

    Args:
        game: the game.
        component: its index.
        decision: ``[D]``, everybody's current decision.
        plan: sessions, budget, seeds.
        own_share: λ.
    """
    where = block(game, component)

    def play(points: Floats, sessions: Sessions) -> Payoffs:
        whole = np.repeat(decision[None], len(points), axis=0)
        whole[:, where] = points
        return game.play(whole, sessions)

    def score(points: Floats) -> Floats:
        played = play(points, plan.train).mixed(component, own_share)
        return np.asarray(played.mean(axis=1))

    start = decision[where]
    found = [search(score, plan.budget, start, seed) for seed in plan.seeds]
    best = max(range(len(found)), key=lambda i: found[i].value)
    judged = np.stack([start, found[best].half, *(f.best for f in found)])
    return _judged(
        game.components[component],
        play(judged, plan.held_out),
        component,
        own_share,
        best,
        found[best].value - found[best].start_value,
        found[best].best,
    )


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
    value above ``tolerance`` of what the component maximises.

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
            response = best_response(game, component, decision, fresh, own_share)
            responses.append(response)
            if response.gain.low <= 0.0:
                continue
            current = game.play(decision[None], plan.held_out).mixed(component, own_share).mean()
            if response.gain.value > tolerance * abs(float(current)):
                settled = False
            decision[block(game, component)] = response.decision
        history.append(decision.copy())
    warning = None
    if not settled:
        left = ", ".join(f"{r.component} {r.gain}" for r in responses)
        warning = f"not stable after {max_rounds} rounds; gains of the last round: {left}"
    return Stable(decision, len(history), settled, tuple(history), tuple(responses), warning)


def static_response(
    replay: Replay,
    team: TeamPolicy,
    component: str,
    default: Action,
    plan: SearchPlan,
    own_share: float = 1.0,
) -> BestResponse:
    """Search the static action of ``component`` that answers the rest of a team best.

    Args:
        replay: plays sessions.
        team: plays all other components, and the one in question before it deviates.
        component: the deviator.
        default: its default action, where the search starts.
        plan: sessions, budget, seeds.
        own_share: λ.
    """
    space = replay.action_spaces[component]

    def fixed(point: Floats) -> TeamPolicy:
        return StaticTeam({component: decode(space, point)})

    def means(policies: Sequence[TeamPolicy]) -> Floats:
        played = _deviate(replay, team, component, policies, plan.train)
        return np.asarray(played.mixed(0, own_share).mean(axis=1))

    def score(points: Floats) -> Floats:
        return means([fixed(point) for point in points])

    found = [search(score, plan.budget, encode(space, default), seed) for seed in plan.seeds]
    best = max(range(len(found)), key=lambda i: found[i].value)
    judged = [team, fixed(found[best].half), *(fixed(f.best) for f in found)]
    return _judged(
        component,
        _deviate(replay, team, component, judged, plan.held_out),
        0,
        own_share,
        best,
        found[best].value - float(means([team])[0]),
    )


def judge_policies(
    replay: Replay,
    team: TeamPolicy,
    component: str,
    finals: Sequence[TeamPolicy],
    halves: Sequence[TeamPolicy],
    plan: SearchPlan,
    own_share: float,
) -> BestResponse:
    """Judge learned responses: the best seed on training sessions, measured on held-out ones.

    Args:
        replay: plays sessions.
        team: as in :func:`static_response`.
        component: the deviator.
        finals: one trained response a seed.
        halves: the same at half of the budget.
        plan: sessions.
        own_share: λ that the responses maximised.
    """
    trained = _deviate(replay, team, component, [team, *finals], plan.train)
    means = trained.mixed(0, own_share).mean(axis=1)
    best = int(means[1:].argmax())
    played = _deviate(replay, team, component, [team, halves[best], *finals], plan.held_out)
    return _judged(component, played, 0, own_share, best, float(means[1 + best] - means[0]))


def _deviate(
    replay: Replay,
    team: TeamPolicy,
    component: str,
    responses: Sequence[TeamPolicy],
    sessions: Sessions,
) -> Payoffs:
    """Play a team once for each response that a component may play in the team's place."""
    lineups = [
        {agent: response if agent == component else team for agent in replay.agents}
        for response in responses
    ]
    return play_lineups(replay, lineups, sessions, (component,))


def chosen_by_other_half(values: Floats) -> NDArray[np.int64]:
    """Return for each session the option of the highest mean on the half it does not belong to.

    The largest of several noisy means is too large on the sessions that chose it. Where each half
    is paid by what the other half chose, the mean is a lower bound in expectation and may be
    negative.

    Args:
        values: ``[S, A]``, each session's value of each option.

    Returns:
        Int64 ``[S]``; halves are the even and the odd places.
    """
    first = np.arange(len(values)) % 2 == 0
    best_of_first, best_of_second = (int(values[h].mean(axis=0).argmax()) for h in (first, ~first))
    return np.where(first, best_of_second, best_of_first)


def nash_conv(gains: Sequence[Sequence[Floats]]) -> Estimate:
    """Return the sum over components of what deviating gains them, with Student's interval.

    Whether a component deviates, and by which of its responses, is decided on one half of the
    sessions and paid on the other: the sum of largest means would lie above zero at an exact
    equilibrium. Crossed over, it may fall below by chance.

    Args:
        gains: of each component, of each response found, the paired gains ``[S]`` on the same
            sessions.
    """
    paid = []
    for found in gains:
        options = np.stack([np.zeros_like(found[0]), *found], axis=1)  # staying is one
        paid.append(options[np.arange(len(options)), chosen_by_other_half(options)])
    return mean_estimate(np.sum(paid, axis=0))
