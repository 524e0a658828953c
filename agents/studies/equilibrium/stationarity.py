"""First-order conditions at a point: is ∂f_i/∂x_i zero?

Central differences under common random numbers; at a face of the cube the derivative may point
outwards (Karush, Kuhn and Tucker). A necessary condition, local and blind to large deviations:
that is what best responses are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agents.studies.equilibrium.decision_game import Criterion, DecisionGame, Sessions, block
from agents.studies.equilibrium.intervals import Interval, mean_interval
from agents.studies.equilibrium.normal_form import Floats

__all__ = ["Derivative", "derivatives"]

STEP = 0.05
"""Half the distance of the two points, as a share of the coordinate's range; a simulator's payoffs
are piecewise constant in some decisions, so it must not be tiny."""


@dataclass(frozen=True, slots=True)
class Derivative:
    """Of a component's criterion by one of its own coordinates, per session and unit range."""

    component: str
    coordinate: int
    at: float
    slope: Interval
    stationary: bool
    """Whether the interval holds zero, or the slope leads out of the cube at its face."""


def derivatives(
    game: DecisionGame,
    decision: Floats,
    criteria: Sequence[Criterion],
    sessions: Sessions,
    step: float = STEP,
) -> list[Derivative]:
    """Return the slope of every component's criterion in each of its own coordinates.

    Args:
        game: the game.
        decision: ``[D]``, the point.
        criteria: one a component.
        sessions: on which slopes are measured.
        step: half distance of the differences.
    """
    found = []
    for component, criterion in enumerate(criteria):
        where = block(game, component)
        for coordinate in range(where.start, where.stop):
            pair = np.repeat(decision[None], 2, axis=0)
            pair[0, coordinate] = max(decision[coordinate] - step, 0.0)
            pair[1, coordinate] = min(decision[coordinate] + step, 1.0)
            values = criterion(game.play(pair, sessions))
            slope = mean_interval(
                (values[1] - values[0]) / (pair[1, coordinate] - pair[0, coordinate])
            )
            at = float(decision[coordinate])
            outwards = (at < step and slope.high <= 0.0) or (at > 1.0 - step and slope.low >= 0.0)
            found.append(
                Derivative(
                    game.components[component],
                    coordinate - where.start,
                    at,
                    slope,
                    bool(slope.low <= 0.0 <= slope.high or outwards),
                )
            )
    return found
