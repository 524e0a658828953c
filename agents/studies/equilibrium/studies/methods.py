"""When does learning pay? Static optimisers and learned play under stated budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agents.studies.equilibrium.comparison import MethodResult, compare_methods
from agents.studies.equilibrium.intervals import mean_interval
from agents.studies.equilibrium.lineups import Lineup, play_lineups
from agents.studies.equilibrium.pipeline_game import PipelineGame
from agents.studies.equilibrium.studies.common import Play, Section, Settings, short
from marec_env.reporting.table import TextTable

__all__ = ["Learned", "methods_table"]


@dataclass(frozen=True, slots=True)
class Learned:
    """A learned play and what it cost."""

    play: Play
    env_steps: int


def methods_table(game: PipelineGame, learned: Sequence[Learned], settings: Settings) -> Section:
    """Return every method's F and user outcomes on the same held-out sessions."""
    results = compare_methods(game, settings.plan())
    best = max(results, key=lambda result: result.value.value)
    # The session length of the default play prices an evaluation in env steps.
    length = game.play(game.default()[None], settings.train()).outcomes["length"].mean()
    cost = int(settings.budget * settings.train_sessions * float(length))
    rows = [_row(result, cost) for result in results]
    record: list[dict[str, Any]] = [
        {
            "method": r.method,
            "env_steps": cost,
            "team": r.value.as_json(),
            "over_default": r.over_default.as_json(),
            "by_seed": list(r.by_seed),
            "half_budget": r.half_budget,
            "outcomes": r.outcomes,
            "decision": r.decision.tolist(),
        }
        for r in results
    ]
    if learned:
        lineups: list[Lineup] = [
            dict.fromkeys(game.env.agents, entry.play.policy) for entry in learned
        ]
        lineups += [game.lineup(game.default()), game.lineup(best.decision)]
        outcome = play_lineups(game.env, lineups, settings.held_out(), game.components)
        for row, entry in enumerate(learned):
            value = mean_interval(outcome.team[row])
            over_default = mean_interval(outcome.team[row] - outcome.team[-2])
            over_best = mean_interval(outcome.team[row] - outcome.team[-1])
            clicks = float(outcome.outcomes["clicks"][row].mean())
            rows.append(
                (
                    f"{entry.play.name} (learned)",
                    f"{entry.env_steps:,}",
                    short(value),
                    short(over_default),
                    f"{clicks:.2f}",
                    f"over {best.method}: {short(over_best)}",
                )
            )
            record.append(
                {
                    "method": entry.play.name,
                    "learned": True,
                    "env_steps": entry.env_steps,
                    "team": value.as_json(),
                    "over_default": over_default.as_json(),
                    "over_best_search": over_best.as_json(),
                    "outcomes": {k: float(v[row].mean()) for k, v in outcome.outcomes.items()},
                }
            )
    return Section(
        "methods",
        "When learning pays",
        {"methods": record},
        (
            TextTable(
                "One static decision by search, and learned play",
                ("method", "env steps a seed", "F", "over the default", "clicks", "by seed"),
                rows,
                (
                    f"Searches: {settings.budget} evaluations on {settings.train_sessions} "
                    f"sessions, {settings.seeds} seeds, the best on the training sessions; all "
                    f"judged on the same {settings.held_out_sessions} other sessions.",
                ),
            ),
        ),
    )


def _row(result: MethodResult, cost: int) -> tuple[str, ...]:
    return (
        result.method,
        f"{cost:,}",
        short(result.value),
        short(result.over_default),
        f"{result.outcomes['clicks']:.2f}",
        ", ".join(f"{value:.2f}" for value in result.by_seed),
    )
