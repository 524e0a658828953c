"""How much there is to gain in a game: random, hand-set and searched static play, oracles, a team.

Every policy meets the same held-out sessions, so differences are paired. The best static pipeline
is searched over all action dimensions on other sessions, once per search seed, and the environment
steps that each search spent are counted: a learner is to be compared at an equal number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from agents.baselines import build_baseline
from agents.baselines.teams import StaticTeam
from agents.equilibrium import search
from agents.equilibrium.decision_game import Outcome, block
from agents.equilibrium.normal_form import Floats
from agents.equilibrium.pipeline_game import PipelineGame
from agents.equilibrium.replay import SimulatorReplay
from marec_env.evaluation.outcomes import Outcomes
from marec_env.evaluation.policies import Policy
from marec_env.evaluation.rollout import rollout
from marec_env.evaluation.statistics import Estimate, mean_estimate, paired_difference
from marec_env.simulator import Simulator
from marec_env.world import World

__all__ = ["LevelsPlan", "measure_levels", "search_static"]

OUTCOMES = ("return", "clicks", "length", "satisfaction")
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
    method: str = "cem"
    criterion: str = "clicks"


def search_static(world: World, plan: LevelsPlan, seed: int) -> tuple[StaticTeam, int]:
    """Search one static decision of the whole team for the highest criterion.

    Returns:
        The team, and the environment steps that the search spent.
    """
    replay = SimulatorReplay(world, plan.search_cohort)
    game = PipelineGame(replay, replay.default_actions())
    sessions = np.arange(plan.search_sessions, dtype=np.int64)
    spent = 0

    def score(points: Floats) -> Floats:
        nonlocal spent
        outcome = game.play(points, sessions)
        spent += int(outcome.outcomes["length"].sum())
        return np.asarray(_criterion(outcome, plan.criterion).mean(axis=1), dtype=np.float64)

    blocks = [block(game, place) for place in range(len(game.components))]
    method = search.SEARCHES.get(plan.method)
    found = search.run(method, score, plan.search_budget, game.default(), blocks, seed)
    return StaticTeam(game.actions(found.best), f"best static (seed {seed})"), spent


def _criterion(outcome: Outcome, name: str) -> Floats:
    return outcome.team if name == "return" else outcome.outcomes[name]


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
    for seed in plan.search_seeds:
        team, spent = search_static(world, plan, seed)
        policies[team.name], steps[team.name] = team, spent
    policies |= dict(trained or {})
    played = {name: rollout(world, p, plan.sessions, plan.cohort) for name, p in policies.items()}
    searched = list(steps)
    best = max(searched, key=lambda name: played[name].means()[plan.criterion])
    pairs = [("static", "random"), (best, "static"), ("oracle", best)]
    pairs += [(name, best) for name in trained or {}]
    return {
        "plan": asdict(plan),
        "levels": {name: _estimates(outcomes) for name, outcomes in played.items()},
        "search_env_steps": steps,
        "best_static": best,
        "differences": [_difference(played, plan.criterion, pair) for pair in pairs],
    }


def _estimates(outcomes: Outcomes) -> dict[str, dict[str, float]]:
    return {name: _numbers(mean_estimate(outcomes.per_session[name].numpy())) for name in OUTCOMES}


def _numbers(estimate: Estimate) -> dict[str, float]:
    return {
        "mean": estimate.value,
        "standard_error": estimate.standard_error,
        "low": estimate.low,
        "high": estimate.high,
    }


def _difference(
    played: Mapping[str, Outcomes], criterion: str, pair: Sequence[str]
) -> dict[str, Any]:
    first, second = (played[name].per_session[criterion].numpy() for name in pair)
    difference = paired_difference(first, second).difference
    return {
        "of": pair[0],
        "minus": pair[1],
        **_numbers(difference),
        "relative": difference.value / float(second.mean()),
        "standard_errors": difference.value / difference.standard_error,
    }
