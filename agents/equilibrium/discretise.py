"""Payoff matrices of a few components' decisions, measured on the same sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np

from agents.equilibrium.decision_game import DecisionGame, Outcome, Sessions, block
from agents.equilibrium.estimated import EstimatedGame
from agents.equilibrium.normal_form import Floats
from marec_env.errors import ConfigError

__all__ = ["payoff_matrices"]


def payoff_matrices(
    game: DecisionGame,
    options: Mapping[str, Mapping[str, Floats]],
    base: Floats,
    sessions: Sessions,
    own_share: float = 1.0,
    welfare: Callable[[Outcome], Floats] = lambda outcome: outcome.team,
    batch: int = 16,
) -> EstimatedGame:
    """Play every combination of the given components' options, the others at ``base``.

    Args:
        game: the game.
        options: per player (a component) the named decisions ``[d_i]`` it may choose between.
        base: ``[D]``, the others' decision.
        sessions: the same for all profiles.
        own_share: λ of the payoffs λ f_i + (1 − λ) F.
        welfare: what the team is worth, ``[P, S]``.
        batch: decisions played at once.

    Raises:
        ConfigError: a player is not a component of the game.
    """
    for name in options:
        if name not in game.components:
            raise ConfigError(f"'{name}' is no component; there are {', '.join(game.components)}")
    players = tuple(options)
    index = [game.components.index(name) for name in players]
    labels = tuple(tuple(options[name]) for name in players)
    profiles = list(product(*(range(len(names)) for names in labels)))
    decisions = np.repeat(np.asarray(base, dtype=np.float64)[None], len(profiles), axis=0)
    for row, actions in enumerate(profiles):
        for component, name, action, names in zip(index, players, actions, labels, strict=True):
            decisions[row, block(game, component)] = options[name][names[action]]
    payoffs, worth = _play(game, decisions, sessions, index, own_share, welfare, batch)
    shape = tuple(len(names) for names in labels)
    return EstimatedGame(
        payoffs=payoffs.transpose(1, 2, 0).reshape(len(sessions), len(players), *shape),
        welfare=worth.T.reshape(len(sessions), *shape),
        players=players,
        labels=labels,
    )


def _play(
    game: DecisionGame,
    decisions: Floats,
    sessions: Sessions,
    index: Sequence[int],
    own_share: float,
    welfare: Callable[[Outcome], Floats],
    batch: int,
) -> tuple[Floats, Floats]:
    """Return payoffs ``[P, S, players]`` and welfare ``[P, S]``."""
    payoffs, worth = [], []
    for first in range(0, len(decisions), batch):
        outcome = game.play(decisions[first : first + batch], sessions)
        selfish = outcome.objectives[..., list(index)]
        payoffs.append(own_share * selfish + (1.0 - own_share) * outcome.team[..., None])
        worth.append(welfare(outcome))
    return np.concatenate(payoffs), np.concatenate(worth)
