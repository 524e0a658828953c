"""The two-agent profile-recall game: every combination of a few options played, then solved.

Payoffs are means over simulated sessions, all profiles on the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from agents.baselines.teams import StaticTeam
from agents.studies.equilibrium.best_response import nash_conv
from agents.studies.equilibrium.common import Finding, Play, Settings, heat_map
from agents.studies.equilibrium.lineups import Payoffs, Replay, Sessions, play_lineups
from agents.studies.equilibrium.normal_form import (
    Floats,
    MixedProfile,
    NormalFormGame,
    efficiency,
    game_record,
    game_tables,
    profile_names,
)
from marec_env.evaluation.policies import TeamPolicy
from marec_env.evaluation.statistics import Estimate, bootstrap_means
from marec_env.reporting.drawing import Figure
from marec_env.reporting.page import Section
from marec_env.reporting.table import TextTable
from marec_env.vector import Action

if TYPE_CHECKING:
    from marec_env.pipeline.config import PipelineConfig

PROFILE, RECALL = "profile_0", "recall_0"
SHOWN_SHARE = 0.05  # profiles that are equilibria in fewer resamples are only in the JSON
RESAMPLES = 400
_BATCH = 16  # profiles played at once
_OFF, _ON = -1.0, 1.0  # ends of the profile's action range: weight 0 and weight 1


Options = dict[str, dict[str, TeamPolicy]]
"""By player (a component) and name, the policies that may play it."""


@dataclass(frozen=True, slots=True)
class EstimatedGame:
    """Payoff samples of every pure profile on the same sessions (common random numbers)."""

    payoffs: Floats
    """``[S, 2, A, B]``: each session's payoff to each player at each profile."""
    welfare: Floats
    """``[S, A, B]``: the team's worth."""
    players: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, played: Payoffs, options: Options, own_share: float) -> EstimatedGame:
        """Return the game of payoffs λ f_i + (1 − λ) F, with λ = ``own_share``."""
        shape = (played.team.shape[1], *(len(choices) for choices in options.values()))
        own = [played.mixed(i, own_share).T.reshape(shape) for i in range(len(options))]
        labels = tuple(tuple(choices) for choices in options.values())
        return cls(np.stack(own, axis=1), played.team.T.reshape(shape), tuple(options), labels)

    def mean_game(self) -> NormalFormGame:
        """Return the game of mean payoffs."""
        payoffs, welfare = self.payoffs.mean(axis=0), self.welfare.mean(axis=0)
        return NormalFormGame(payoffs, welfare, self.labels, self.players)

    def deviations(self, profile: MixedProfile) -> list[list[Floats]]:
        """Return what each player gains by each of its actions, ``[S]`` each, at a profile."""
        first, second = self.payoffs[:, 0], self.payoffs[:, 1].swapaxes(1, 2)  # [S, own, other]
        sides = (first @ profile[1], profile[0]), (second @ profile[0], profile[1])
        return [list((values - (values @ own)[:, None]).T) for values, own in sides]

    def gains(self, profile: MixedProfile) -> list[Estimate]:
        """Return each player's gain by the response that the other half of the sessions chose."""
        return [nash_conv([options]) for options in self.deviations(profile)]


def play_options(
    replay: Replay,
    options: Options,
    others: TeamPolicy,
    sessions: Sessions,
) -> Payoffs:
    """Play every combination of options on the same sessions, all other components by ``others``;
    objectives are those of the players.
    """
    profiles = product(*(choices.values() for choices in options.values()))
    lineups = [
        {**dict.fromkeys(replay.agents, others), **dict(zip(options, chosen, strict=True))}
        for chosen in profiles
    ]
    return play_lineups(replay, lineups, sessions, tuple(options), _BATCH)


def estimated_record(
    estimated: EstimatedGame, played: MixedProfile | None = None, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Return the record of a measured game, with intervals and the doubt in its equilibria.

    Gains and NashConv are cross-fitted: which action is the best response is decided on one half of
    the sessions and paid on the other. Optimum and prices are of the mean game; their intervals
    redo them in each resample of sessions, and so include the doubt which profiles are equilibria.
    The NashConv told is of ``played``, of uniform play unless given.
    """
    game = estimated.mean_game()
    uniform = game.uniform()
    support: dict[tuple[int, ...], int] = {}

    def statistics(means: Mapping[str, Floats]) -> dict[str, float]:
        resampled = NormalFormGame(means["payoffs"], means["welfare"])
        pure = resampled.pure_equilibria()
        for actions in pure:
            support[actions] = support.get(actions, 0) + 1
        prices = efficiency(resampled, [resampled.pure(actions) for actions in pure])
        anarchy, stability = (float("nan") if price is None else price for price in prices)
        return {
            "optimum_welfare": resampled.social_optimum()[1],
            "pure_anarchy": anarchy,
            "pure_stability": stability,
        }

    samples = {"payoffs": estimated.payoffs, "welfare": estimated.welfare}
    intervals = bootstrap_means(samples, statistics, resamples)
    for actions in game.pure_equilibria():  # counted once more, for the point estimate
        support[actions] -= 1
    intervals["nash_conv"] = nash_conv(estimated.deviations(uniform if played is None else played))
    gap = nash_conv(estimated.deviations(uniform)).value
    return {
        **game_record(game),
        "uniform": {
            "nash_conv": gap,
            "exploitability": gap / len(game.players),
            "gains": [gain.value for gain in estimated.gains(uniform)],
        },
        "intervals": intervals,
        "support": [
            {
                "profile": profile_names(game, game.pure(actions)),
                "share_of_resamples": count / resamples,
                "gains_on_other_half": estimated.gains(game.pure(actions)),
            }
            for actions, count in sorted(support.items())
            if count
        ],
        "payoffs": game.payoffs,
        "welfare": game.welfare,
        "labels": game.labels,
    }


def pipeline_options(config: PipelineConfig, defaults: Mapping[str, Action]) -> Options:
    """Return what profile and recall may do: their defaults, or one thing alone.

    Profiles use one history time scale, or the population prior; recall gives all quotas to one
    channel.
    """
    profile, recall = defaults[PROFILE], defaults[RECALL]
    assert isinstance(profile, torch.Tensor) and isinstance(recall, torch.Tensor)
    scales = len(config.half_lives)
    profiles: dict[str, Action] = {"hand-set": profile}
    for number, half_life in enumerate(config.half_lives):
        action = profile.clone()
        action[:scales] = _OFF
        action[number] = _ON
        profiles[f"half-life {half_life:g}"] = action
    prior = profiles["prior only"] = torch.full_like(profile, _OFF)
    prior[-1] = _ON
    recalls: dict[str, Action] = {"equal quotas": recall}
    for number, channel in enumerate(config.recall.channels):
        action = recalls[f"{channel} only"] = torch.zeros_like(recall)
        action[number] = config.recall.levels - 1
    return {
        agent: {name: StaticTeam({agent: action}) for name, action in actions.items()}
        for agent, actions in ((PROFILE, profiles), (RECALL, recalls))
    }


def matrix(replay: Replay, base: Play, learned: Play | None, settings: Settings) -> Finding:
    """Measure the game for selfish and for shared payoffs, and solve both.

    ``base`` plays feature and ranking; profile and recall of ``learned`` are one option each.
    """
    options = pipeline_options(replay.world.config.pipeline, replay.defaults)
    if learned is not None:
        for named in options.values():
            named["learned"] = learned.policy
    tables: list[TextTable] = []
    figures: list[Figure] = []
    record: dict[str, Any] = {"others": base.name}
    played = play_options(replay, options, base.policy, settings.held_out())
    for name, own_share in (("selfish (own f_i)", 1.0), ("shared (F)", 0.0)):
        measured = EstimatedGame.of(played, options, own_share)
        game = measured.mean_game()
        last = [size - 1 for size in game.shape]
        entry = estimated_record(measured, None if learned is None else game.pure(last))
        record[name] = entry
        halves = "Gains and NashConv: of responses chosen on the other half of the sessions."
        tables += [*game_tables(name, entry, (halves,)), _doubt(name, entry, learned is not None)]
        best = game.social_optimum()[0]
        marks = dict.fromkeys(game.pure_equilibria(), "Nash")
        marks[best] = f"{marks.get(best, '')} best".strip()
        figures.append(
            heat_map(
                f"F a session, {name}: {base.name} plays the rest",
                "Matrix of the team objective over profile and recall options; pure equilibria "
                "and the social optimum are marked.",
                game.welfare.tolist(),
                game.labels[0],
                game.labels[1],
                ("profile", "recall"),
                marks,
                "F a session",
            )
        )
    return Finding(record, Section("The profile-recall game solved", tables, figures))


def _doubt(name: str, record: Mapping[str, Any], learned: bool) -> TextTable:
    """Return which profiles are equilibria in how many bootstrap resamples."""
    rows = [
        (
            " | ".join("+".join(weights) for weights in entry["profile"].values()),
            f"{entry['share_of_resamples']:.2f}",
            ", ".join(str(gain) for gain in entry["gains_on_other_half"]),
        )
        for entry in record["support"]
        if entry["share_of_resamples"] >= SHOWN_SHARE
    ]
    who = "learned" if learned else "uniform"
    return TextTable(
        f"{name}: pure equilibria under resampling of sessions",
        ("profile", "share of resamples", "gains of responses chosen on the other half"),
        rows,
        (
            f"Profiles in at least {SHOWN_SHARE:.0%} of the resamples; all are in the JSON.",
            f"NashConv of {who} play within these options: "
            f"{record['intervals']['nash_conv']} a session.",
        ),
    )
