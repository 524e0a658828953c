"""Payoff matrices of a few options per component, measured on the same sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np

from agents.studies.equilibrium.decision_game import DecisionGame, Outcome, Sessions, block, team
from agents.studies.equilibrium.estimated import EstimatedGame
from agents.studies.equilibrium.lineups import ReplayEnv, play_lineups
from agents.studies.equilibrium.normal_form import Floats
from marec_env.errors import ConfigError, unknown_name
from marec_env.evaluation.policies import TeamPolicy

__all__ = ["decision_matrices", "policy_matrices"]

BATCH = 16  # profiles played at once
Profile = tuple[int, ...]


def _measured(
    labels: Mapping[str, Sequence[str]],
    play: Callable[[Sequence[Profile]], Outcome],
    own_share: float,
    welfare: Callable[[Outcome], Floats],
) -> EstimatedGame:
    """Play every profile; ``play`` returns objectives of the game's players, in order."""
    profiles = list(product(*(range(len(names)) for names in labels.values())))
    payoffs, worth = [], []
    for first in range(0, len(profiles), BATCH):
        outcome = play(profiles[first : first + BATCH])
        payoffs.append(own_share * outcome.objectives + (1.0 - own_share) * outcome.team[..., None])
        worth.append(welfare(outcome))
    shape = tuple(len(names) for names in labels.values())
    whole = np.concatenate(payoffs).transpose(1, 2, 0)  # [S, players, profiles]
    return EstimatedGame(
        payoffs=whole.reshape(*whole.shape[:2], *shape),
        welfare=np.concatenate(worth).T.reshape(whole.shape[0], *shape),
        players=tuple(labels),
        labels=tuple(tuple(names) for names in labels.values()),
    )


def _checked(options: Mapping[str, object], components: Sequence[str]) -> None:
    for name in options:
        if name not in components:
            raise ConfigError(unknown_name("component", name, components))


def decision_matrices(
    game: DecisionGame,
    options: Mapping[str, Mapping[str, Floats]],
    base: Floats,
    sessions: Sessions,
    own_share: float = 1.0,
    welfare: Callable[[Outcome], Floats] = team,
) -> EstimatedGame:
    """Play every combination of decisions, the other components at ``base``.

    Args:
        game: the game.
        options: per player (a component) the named decisions ``[d_i]`` it may choose between.
        base: ``[D]``.
        sessions: int64 ``[S]``, the same for all profiles.
        own_share: λ of the payoffs λ f_i + (1 − λ) F.
        welfare: what the team is worth, ``[P, S]``.

    Raises:
        ConfigError: a player is not a component of the game.
    """
    _checked(options, game.components)
    index = [game.components.index(name) for name in options]
    labels = {name: tuple(choices) for name, choices in options.items()}

    def play(profiles: Sequence[Profile]) -> Outcome:
        decisions = np.repeat(np.asarray(base, dtype=np.float64)[None], len(profiles), axis=0)
        for row, actions in enumerate(profiles):
            for (name, choices), component, action in zip(
                options.items(), index, actions, strict=True
            ):
                decisions[row, block(game, component)] = choices[labels[name][action]]
        outcome = game.play(decisions, sessions)
        return Outcome(outcome.objectives[..., index], outcome.team, outcome.outcomes)

    return _measured(labels, play, own_share, welfare)


def policy_matrices(
    env: ReplayEnv,
    options: Mapping[str, Mapping[str, TeamPolicy]],
    others: TeamPolicy,
    sessions: Sessions,
    own_share: float = 1.0,
    welfare: Callable[[Outcome], Floats] = team,
) -> EstimatedGame:
    """Play every combination of policies, so that learned play is one option among fixed ones.

    Args:
        env: the environment.
        options: per player (a component) the named policies that may play it.
        others: plays every other component.
        sessions, own_share, welfare: as in :func:`decision_matrices`.

    Raises:
        ConfigError: a player is not a component of the environment.
    """
    _checked(options, env.agents)
    labels = {name: tuple(choices) for name, choices in options.items()}

    def play(profiles: Sequence[Profile]) -> Outcome:
        lineups = []
        for actions in profiles:
            lineup = dict.fromkeys(env.agents, others)
            for (name, choices), action in zip(options.items(), actions, strict=True):
                lineup[name] = choices[labels[name][action]]
            lineups.append(lineup)
        return play_lineups(env, lineups, sessions, tuple(options))

    return _measured(labels, play, own_share, welfare)
