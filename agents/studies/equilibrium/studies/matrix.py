"""The two-agent profile-recall game, discretised and solved without learning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from agents.baselines.teams import StaticTeam
from agents.studies.equilibrium.discretise import policy_matrices
from agents.studies.equilibrium.figures import heat_map
from agents.studies.equilibrium.game_report import estimated_record, game_tables
from agents.studies.equilibrium.lineups import ReplayEnv
from agents.studies.equilibrium.studies.common import Play, Section, Settings
from marec_env.evaluation.policies import TeamPolicy
from marec_env.reporting.drawing import Figure
from marec_env.reporting.table import TextTable
from marec_env.vector import Action

if TYPE_CHECKING:
    from marec_env.pipeline.config import PipelineConfig

__all__ = ["matrix_game_study", "profile_options", "recall_options"]

PROFILE, RECALL = "profile_0", "recall_0"
SHOWN_SHARE = 0.05  # profiles that are equilibria in fewer resamples are only in the JSON
_OFF, _ON = -1.0, 1.0  # ends of the profile's action range: weight 0 and weight 1


def profile_options(config: PipelineConfig, default: Action) -> dict[str, Action]:
    """Return profiles that use one history time scale, or the population prior, alone."""
    assert isinstance(default, torch.Tensor)
    scales = len(config.half_lives)
    options: dict[str, Action] = {"hand-set": default}
    for number, half_life in enumerate(config.half_lives):
        action = default.clone()
        action[:scales] = _OFF
        action[number] = _ON
        options[f"half-life {half_life:g}"] = action
    prior = torch.full_like(default, _OFF)
    prior[-1] = _ON
    options["prior only"] = prior
    return options


def recall_options(config: PipelineConfig, default: Action) -> dict[str, Action]:
    """Return quotas that give all candidates to one channel, and equal ones."""
    assert isinstance(default, torch.Tensor)
    options: dict[str, Action] = {"equal quotas": default}
    for number, channel in enumerate(config.recall.channels):
        action = torch.zeros_like(default)
        action[number] = config.recall.levels - 1
        options[f"{channel} only"] = action
    return options


def matrix_game_study(
    env: ReplayEnv,
    config: PipelineConfig,
    defaults: Mapping[str, Action],
    base: Play,
    learned: Play | None,
    settings: Settings,
) -> Section:
    """Measure the game for selfish and for shared payoffs, and solve both.

    Args:
        env: the environment.
        config: names of time scales and channels.
        defaults: default actions.
        base: plays feature and ranking.
        learned: a learned team whose profile and recall are one option each.
        settings: sessions.
    """
    options: dict[str, dict[str, TeamPolicy]] = {
        PROFILE: {
            k: StaticTeam({PROFILE: a})
            for k, a in profile_options(config, defaults[PROFILE]).items()
        },
        RECALL: {
            k: StaticTeam({RECALL: a}) for k, a in recall_options(config, defaults[RECALL]).items()
        },
    }
    if learned is not None:
        for choices in options.values():
            choices["learned"] = learned.policy
    tables: list[TextTable] = []
    figures: list[Figure] = []
    record: dict[str, Any] = {"others": base.name}
    for name, own_share in (("selfish (own f_i)", 1.0), ("shared (F)", 0.0)):
        measured = policy_matrices(env, options, base.policy, settings.held_out(), own_share)
        game = measured.mean_game()
        played = None
        if learned is not None:
            played = game.pure([len(choices) - 1 for choices in options.values()])
        entry = estimated_record(measured, played)
        record[name] = entry
        tables += game_tables(name, entry)
        tables.append(_doubt(name, entry, learned is not None))
        marks = dict.fromkeys(game.pure_equilibria(), "Nash")
        best = game.social_optimum()[0]
        marks[best] = f"{marks.get(best, '')} best".strip()
        figures.append(
            heat_map(
                f"F a session, {name}: {base.name} plays the rest",
                "Matrix of the team objective over profile and recall options; pure equilibria "
                "and the social optimum are marked.",
                game.welfare.tolist(),
                game.labels[0],
                game.labels[1],
                "profile",
                "recall",
                {(k[0], k[1]): v for k, v in marks.items()},
                "F a session",
            )
        )
    return Section(
        "matrix", "The profile-recall game solved", record, tuple(tables), tuple(figures)
    )


def _doubt(name: str, record: Mapping[str, Any], learned: bool) -> TextTable:
    """Return which profiles are equilibria in how many bootstrap resamples."""
    intervals = record["intervals"]
    who = "learned" if learned else "uniform"
    rows = [
        (
            " | ".join("+".join(weights) for weights in entry["profile"].values()),
            f"{entry['share_of_resamples']:.2f}",
            ", ".join(
                f"{g['value']:.3f} [{g['low']:.3f}, {g['high']:.3f}]"
                for g in entry["gains_on_other_half"]
            ),
        )
        for entry in record["support"]
        if entry["share_of_resamples"] >= SHOWN_SHARE
    ]
    gap = intervals["nash_conv"]
    return TextTable(
        f"{name}: pure equilibria under resampling of sessions",
        ("profile", "share of resamples", "gains of responses chosen on the other half"),
        rows,
        (
            f"Profiles in at least {SHOWN_SHARE:.0%} of the resamples; all are in the JSON.",
            f"NashConv of {who} play within these options: {gap['value']:.3f} "
            f"[{gap['low']:.3f}, {gap['high']:.3f}] a session.",
        ),
    )
