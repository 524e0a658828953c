"""A normal-form game whose payoffs are means over simulated sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from agents.studies.equilibrium.correlated import correlated_equilibrium
from agents.studies.equilibrium.cross_fitting import chosen_by_other_half
from agents.studies.equilibrium.intervals import Interval, bootstrap
from agents.studies.equilibrium.mixed import Equilibria, find_equilibria
from agents.studies.equilibrium.normal_form import Floats, MixedProfile, NormalFormGame, efficiency

__all__ = ["EstimatedGame", "EstimatedSolution", "cross_fitted_gains", "solve_estimated"]


@dataclass(frozen=True, slots=True)
class EstimatedGame:
    """Payoff samples of every pure profile on the same sessions (common random numbers)."""

    payoffs: Floats
    """``[S, n, A_1, ..., A_n]``: each session's payoff to each player at each profile."""
    welfare: Floats
    """``[S, A_1, ..., A_n]``: the team's worth."""
    players: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]

    def mean_game(self) -> NormalFormGame:
        """Return the game of mean payoffs."""
        return self._game(self.payoffs.mean(axis=0), self.welfare.mean(axis=0))

    def _game(self, payoffs: Floats, welfare: Floats) -> NormalFormGame:
        return NormalFormGame(payoffs, welfare, self.labels, self.players)


@dataclass(frozen=True, slots=True)
class EstimatedSolution:
    """The mean game's solution, with what sampling leaves open."""

    game: NormalFormGame
    equilibria: Equilibria
    optimum: tuple[int, ...]
    correlated: Mapping[str, float]
    """Welfare of the ``best`` and ``worst`` correlated equilibrium of the mean game."""
    intervals: Mapping[str, Interval]
    """Of ``optimum_welfare``, ``pure_anarchy``, ``pure_stability`` (redone in each resample, so
    they include the doubt which profiles are equilibria) and ``nash_conv`` of the given profile."""
    support: Mapping[tuple[int, ...], float]
    """Per pure profile that is an equilibrium in some resample, the share of resamples."""


def solve_estimated(
    estimated: EstimatedGame, profile: MixedProfile | None = None, resamples: int = 400
) -> EstimatedSolution:
    """Solve the mean game and attach bootstrap intervals.

    Args:
        estimated: the samples.
        profile: play whose NashConv is wanted; uniform play unless given.
        resamples: of sessions.
    """
    game = estimated.mean_game()
    played = game.uniform() if profile is None else profile
    support: dict[tuple[int, ...], int] = {}
    calls = 0

    def statistics(means: Mapping[str, Floats]) -> dict[str, float]:
        nonlocal calls
        resampled = NormalFormGame(means["payoffs"], means["welfare"])
        pure = resampled.pure_equilibria()
        if calls:  # the first call is the point estimate
            for actions in pure:
                support[actions] = support.get(actions, 0) + 1
        calls += 1
        anarchy, stability = efficiency(resampled, [resampled.pure(a) for a in pure])
        return {
            "optimum_welfare": resampled.social_optimum()[1],
            "pure_anarchy": float("nan") if anarchy is None else anarchy,
            "pure_stability": float("nan") if stability is None else stability,
            "nash_conv": resampled.nash_conv(played),
        }

    intervals = bootstrap(
        {"payoffs": estimated.payoffs, "welfare": estimated.welfare}, statistics, resamples
    )
    return EstimatedSolution(
        game=game,
        equilibria=find_equilibria(game),
        optimum=game.social_optimum()[0],
        correlated={
            "best": correlated_equilibrium(game, best=True).welfare,
            "worst": correlated_equilibrium(game, best=False).welfare,
        },
        intervals=intervals,
        support={actions: count / resamples for actions, count in sorted(support.items())},
    )


def cross_fitted_gains(estimated: EstimatedGame, actions: tuple[int, ...]) -> Floats:
    """Return ``[S, n]``: gains of best responses chosen on the other half of the sessions.

    See :mod:`agents.studies.equilibrium.cross_fitting` for why.
    """
    sessions, n = estimated.payoffs.shape[:2]
    gains = np.zeros((sessions, n))
    for player in range(n):
        at: list[int | slice] = list(actions)
        at[player] = slice(None)
        values = estimated.payoffs[(slice(None), player, *at)]  # [S, A_i]
        chosen = values[np.arange(sessions), chosen_by_other_half(values)]
        gains[:, player] = chosen - values[:, actions[player]]
    return gains
