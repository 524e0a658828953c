"""Best responses of one component to frozen others, and play that is stable against them.

A response that was searched or learned is a lower bound of the true best one: the report says
whether more budget still helped. Candidates are chosen on training sessions and judged on others,
paired with what is played; a negative gain says that the response found is worse than that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from agents.baselines.teams import StaticTeam
from agents.studies.equilibrium.decisions import PipelineGame, block, decode, encode, search
from agents.studies.equilibrium.lineups import Payoffs, Replay, Sessions, play_lineups
from agents.studies.equilibrium.normal_form import Floats
from marec_env.evaluation.policies import TeamPolicy
from marec_env.evaluation.statistics import Estimate, mean_estimate

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
    choice: Any = field(repr=False)
    """A decision ``[d_i]``, or a policy."""


Play = Callable[[Sequence[Any], Sessions], Payoffs]
"""Plays one component's candidates on sessions, a row each, ``None`` being what it plays now; the
only objective is that component's."""


def judge(
    component: str,
    play: Play,
    finals: Sequence[Any],
    halves: Sequence[Any],
    plan: SearchPlan,
    own_share: float,
) -> BestResponse:
    """Take the response that is best on the training sessions and judge it on the held-out ones.

    ``finals`` are one response a seed, found for λ f_i + (1 − λ) F; ``halves`` the same at half
    of the budget.
    """
    train = play([None, *finals], plan.train).mixed(0, own_share).mean(axis=1)
    best = int(train[1:].argmax())
    played, row = play([None, halves[best], *finals], plan.held_out), 2 + best
    values = played.mixed(0, own_share)
    means = (values - values[0]).mean(axis=1)
    samples = values[row] - values[0]
    gain, half, by_seed = mean_estimate(samples), float(means[1]), tuple(map(float, means[2:]))
    own, train_gain = played.objectives[..., 0], float(train[1 + best] - train[0])
    return BestResponse(
        component=component,
        gain=gain,
        gain_own=mean_estimate(own[row] - own[0]),
        gain_team=mean_estimate(played.team[row] - played.team[0]),
        gain_outcomes={k: mean_estimate(v[row] - v[0]) for k, v in played.outcomes.items()},
        train_gain=train_gain,
        by_seed=by_seed,
        half_budget=half,
        warning=search_warning(gain, half, by_seed, train_gain),
        gain_samples=samples,
        choice=finals[best],
    )


def _searched(
    component: str, play: Play, start: Floats, plan: SearchPlan, own_share: float
) -> BestResponse:
    """Search the point of a unit cube, from ``start``, that responds best."""

    def score(points: Floats) -> Floats:
        return np.asarray(play(list(points), plan.train).mixed(0, own_share).mean(axis=1))

    found = [search(score, plan.budget, start, seed) for seed in plan.seeds]
    finals, halves = [one.best for one in found], [one.half for one in found]
    return judge(component, play, finals, halves, plan, own_share)


def search_warning(
    gain: Estimate, half: float, by_seed: Sequence[float], train_gain: float
) -> str | None:
    """Return why a gain may be far from that of the true best response, or ``None``; see
    :class:`BestResponse`.
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
    game: PipelineGame, component: int, decision: Floats, plan: SearchPlan, own_share: float = 1.0
) -> BestResponse:
    """Search the component's decision that maximises λ f_i + (1 − λ) F, with λ = ``own_share``,
    while the others keep to ``decision [D]``, where the search starts.
    """
    where = block(game, component)

    def play(points: Sequence[Any], sessions: Sessions) -> Payoffs:
        whole = np.repeat(decision[None], len(points), axis=0)
        whole[:, where] = [decision[where] if point is None else point for point in points]
        played = game.play(whole, sessions)
        return replace(played, objectives=played.objectives[..., [component]])

    return _searched(game.components[component], play, decision[where], plan, own_share)


def static_response(
    replay: Replay, team: TeamPolicy, component: str, plan: SearchPlan, own_share: float = 1.0
) -> BestResponse:
    """Search, from its default, the static action of a component that answers a team best, which
    also plays the component before it deviates.
    """
    space = replay.action_spaces[component]

    def play(points: Sequence[Any], sessions: Sessions) -> Payoffs:
        fixed = [p if p is None else StaticTeam({component: decode(space, p)}) for p in points]
        return deviate(replay, team, component, fixed, sessions)

    start = encode(space, replay.defaults[component])
    return _searched(component, play, start, plan, own_share)


def deviate(
    replay: Replay,
    team: TeamPolicy,
    component: str,
    responses: Sequence[TeamPolicy | None],
    sessions: Sessions,
) -> Payoffs:
    """Play a team once for each response that a component may play in the team's place."""
    lineups = [
        dict.fromkeys(replay.agents, team) | ({} if response is None else {component: response})
        for response in responses
    ]
    return play_lineups(replay, lineups, sessions, (component,))


@dataclass(frozen=True, slots=True)
class Stable:
    """Where iterated best responses ended."""

    decision: Floats
    """``[D]``."""
    settled: bool
    """Whether in the last round nobody gained beyond its interval or the tolerance."""
    history: tuple[Floats, ...]
    """The decision after each round."""
    responses: tuple[BestResponse, ...]
    """Of the last round, one a component: their gains are what is left to gain."""
    warning: str | None


def iterated_best_responses(
    game: PipelineGame,
    start: Floats,
    plan: SearchPlan,
    own_share: float = 1.0,
    max_rounds: int = 8,
    tolerance: float = 0.01,
) -> Stable:
    """Let components respond in turn until nobody gains.

    A component moves only if its response gains on the held-out sessions, so that search noise
    moves nobody. Play is stable when in a full round no gain has an interval above zero and a
    value above ``tolerance`` of what the component maximises, λ f_i + (1 − λ) F with
    λ = ``own_share``.
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
            decision[block(game, component)] = response.choice
        history.append(decision.copy())
    warning = None
    if not settled:
        left = ", ".join(f"{r.component} {r.gain}" for r in responses)
        warning = f"not stable after {max_rounds} rounds; gains of the last round: {left}"
    return Stable(decision, settled, tuple(history), tuple(responses), warning)


def nash_conv(gains: Sequence[Sequence[Floats]]) -> Estimate:
    """Return the sum over components of what deviating gains them, with Student's interval.

    Whether a component deviates, and by which of its responses, is decided on one half of the
    sessions (the even or the odd places) and paid on the other: the sum of largest means would lie
    above zero at an exact equilibrium. Crossed over, it is a lower bound in expectation and may
    fall below zero by chance. ``gains`` are, of each component, of each response found, the paired
    gains ``[S]`` on the same sessions.
    """
    paid = []
    for found in gains:
        options = np.stack([np.zeros_like(found[0]), *found], axis=1)  # staying is one
        first = np.arange(len(options)) % 2 == 0
        by_first, by_second = (int(options[h].mean(axis=0).argmax()) for h in (first, ~first))
        paid.append(np.where(first, options[:, by_second], options[:, by_first]))
    return mean_estimate(np.sum(paid, axis=0))
