"""How much there is to gain in a game: random, hand-set and searched static play, oracles, a team.

Every policy meets the same held-out sessions, so differences are paired. The best static pipeline
is searched over all action dimensions on other sessions, once per search seed, and the environment
steps that each search spent are counted: a learner is to be compared at an equal number. Beside
each trained team stand its two controls (:mod:`agents.studies.headroom.controls`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from agents.baselines import build_baseline
from agents.baselines.teams import StaticTeam
from agents.studies.equilibrium.decisions import PipelineGame
from agents.studies.equilibrium.lineups import SimulatorReplay
from agents.studies.equilibrium.normal_form import Floats
from agents.studies.equilibrium.search import search
from agents.studies.headroom.controls import ShuffledObservations, frozen_mean, record_play
from marec_env.evaluation.policies import Policy, TeamPolicy
from marec_env.evaluation.rollout import RolloutResult, rollout
from marec_env.evaluation.statistics import Estimate, mean_estimate, paired_difference
from marec_env.reporting.table import TextTable
from marec_env.simulator import Simulator
from marec_env.world import World

__all__ = ["CRITERIA", "LevelsPlan", "levels_table", "measure_levels", "search_static"]

OUTCOMES = ("return", "clicks", "length", "satisfaction")
CRITERIA = {"clicks": "clicks", "return": "F"}
"""Criteria of searches, and what tables call them."""
_FLOOR_AND_BARS = ("random", "static", "oracle_myopic", "oracle")


@dataclass(frozen=True, slots=True)
class LevelsPlan:
    """Budgets and cohorts, saved with the result."""

    search_budget: int
    """Static decisions tried by each search."""
    search_sessions: int
    search_seeds: tuple[int, ...]
    search_cohort: int
    """Seed of the sessions searched on; apart from the held-out ones."""
    sessions: int
    """Held-out sessions."""
    cohort: int
    """Their seed."""
    control_sessions: int = 256
    """Sessions of the search cohort on which a trained team's play is recorded for its controls."""
    criteria: tuple[str, ...] = ("clicks", "return")
    """What static play is searched for, each by searches of its own: what users get, and what teams
    are paid (``return``: F)."""


def search_static(
    world: World, plan: LevelsPlan, criterion: str, seed: int
) -> tuple[StaticTeam, int]:
    """Search one static decision of the whole team for the highest criterion.

    Returns:
        The team, and the environment steps that the search spent.
    """
    replay = SimulatorReplay(world, plan.search_cohort)
    game = PipelineGame(replay, replay.defaults)
    sessions = np.arange(plan.search_sessions, dtype=np.int64)
    spent = 0

    def score(points: Floats) -> Floats:
        nonlocal spent
        played = game.play(points, sessions)
        spent += int(played.outcomes["length"].sum())
        values = played.of("team" if criterion == "return" else criterion)
        return np.asarray(values.mean(axis=1), dtype=np.float64)

    found = search(score, plan.search_budget, game.default(), seed)
    name = f"best static for {CRITERIA[criterion]} (seed {seed})"
    return StaticTeam(game.actions(found.best), name), spent


def measure_levels(
    world: World, plan: LevelsPlan, trained: Mapping[str, Policy] | None = None
) -> dict[str, Any]:
    """Return each policy's outcomes with intervals, and paired differences between neighbours.

    Args:
        world: the game.
        plan: budgets and cohorts.
        trained: further policies by name.
    """
    policies: dict[str, Policy] = {}
    steps: dict[str, int] = {}
    simulator = Simulator(world, 1, autoreset=False)
    for name in _FLOOR_AND_BARS:
        policies[name] = build_baseline(name, simulator)
    searched: dict[str, list[str]] = {criterion: [] for criterion in plan.criteria}
    for criterion, names in searched.items():
        for seed in plan.search_seeds:
            team, spent = search_static(world, plan, criterion, seed)
            policies[team.name], steps[team.name] = team, spent
            names.append(team.name)
    teams = dict(trained or {})
    controls: dict[str, Policy] = {}
    for name, policy in teams.items():
        controls |= _controls(world, name, policy, plan)
    policies |= teams | controls
    played = {name: rollout(world, p, plan.sessions, plan.cohort) for name, p in policies.items()}
    best = {
        criterion: max(names, key=lambda name: played[name].means()[criterion])
        for criterion, names in searched.items()
    }
    differences = [
        {"criterion": criterion, **entry}
        for criterion, reference in best.items()
        for entry in _differences(
            {name: found.per_session[criterion].numpy() for name, found in played.items()},
            reference,
            list(teams),
            list(controls),
        )
    ]
    return {
        "environment": world.config.model_dump(mode="json"),
        "plan": asdict(plan),
        "levels": {name: _estimates(outcomes) for name, outcomes in played.items()},
        "search_env_steps": steps,
        "best_static": best,
        "differences": differences,
    }


def _controls(world: World, name: str, team: Policy, plan: LevelsPlan) -> dict[str, Policy]:
    """Return a team's controls by name; none for a recommender of whole slates."""
    if not isinstance(team, TeamPolicy):
        return {}
    play = record_play(world, team, plan.control_sessions, plan.search_cohort)
    return {
        f"{name}, shuffled": ShuffledObservations(team, play, plan.cohort),
        f"{name}, frozen": frozen_mean(play),
    }


def _differences(
    values: Mapping[str, Floats], best: str, teams: list[str], controls: list[str]
) -> list[dict[str, Any]]:
    """Return paired differences of one criterion, ``[S]`` a policy, most of them to the best
    static.
    """
    pairs = [("static", "random"), (best, "static"), ("oracle", best)]
    pairs += [(name, best) for name in (*teams, *controls)]
    found = [_compared(values[one], values[other], one, other) for one, other in pairs]
    if len(teams) > 1:
        mean = np.mean([values[name] for name in teams], axis=0)
        pooled = _compared(mean, values[best], f"mean of {len(teams)} trained teams", best)
        found.append(pooled | {"over_teams": _over_teams(values, teams, best)})
    return found


def _over_teams(
    values: Mapping[str, Floats], teams: list[str], best: str
) -> dict[str, float | None]:
    """Return the mean and standard error, over teams (training seeds), of what each gains."""
    gains = [float((values[name] - values[best]).mean()) for name in teams]
    return _numbers(mean_estimate(np.array(gains)))


def _estimates(outcomes: RolloutResult) -> dict[str, dict[str, float | None]]:
    return {name: _numbers(mean_estimate(outcomes.per_session[name].numpy())) for name in OUTCOMES}


def _numbers(estimate: Estimate) -> dict[str, float | None]:
    return {**estimate.as_json("mean"), "standard_error": estimate.standard_error}


def _compared(first: Floats, second: Floats, name: str, other: str) -> dict[str, Any]:
    difference = paired_difference(first, second).difference
    error, base = difference.standard_error, float(second.mean())
    return {
        "of": name,
        "minus": other,
        **_numbers(difference),
        "relative": difference.value / base if base > 0 else None,
        "standard_errors": difference.value / error if error > 0 else 0.0,
    }


def levels_table(report: Mapping[str, Any]) -> TextTable:
    """Return the levels of a report as a table, its differences in words below."""
    measures = ("F", "clicks", "requests", "satisfaction")
    rows = []
    for policy, row in report["levels"].items():
        cells = [f"{v['mean']:.2f} ± {v['standard_error']:.2f}" for v in row.values()]
        steps = report["search_env_steps"].get(policy)
        rows.append([policy, *cells, f"{steps:,}" if steps else ""])
    return TextTable(
        f"{report['plan']['sessions']} sessions, the same for all",
        ("policy", *(f"{name} ± s.e." for name in measures), "env steps of the search"),
        rows,
        [_sentence(row) for row in report["differences"]],
    )


def _sentence(row: Mapping[str, Any]) -> str:
    relative = "" if row["relative"] is None else f"{row['relative']:+.1%}, "
    line = (
        f"{CRITERIA[row['criterion']]} of {row['of']} over {row['minus']}: "
        f"{row['mean']:+.2f} ± {row['standard_error']:.2f} "
        f"({relative}{row['standard_errors']:.1f} standard errors)"
    )
    if over := row.get("over_teams"):
        line += f"; over training seeds {over['mean']:+.2f} ± {over['standard_error']:.2f}"
    return line
