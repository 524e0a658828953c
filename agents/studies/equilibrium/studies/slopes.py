"""First-order conditions at learned play."""

from __future__ import annotations

from collections.abc import Sequence

from agents.studies.equilibrium.intervals import Interval
from agents.studies.equilibrium.lineups import ReplayEnv
from agents.studies.equilibrium.policy_slopes import policy_slopes
from agents.studies.equilibrium.studies.common import Play, Section, Settings, short
from marec_env.reporting.table import TextTable

__all__ = ["slopes"]


def slopes(env: ReplayEnv, plays: Sequence[Play], settings: Settings) -> Section:
    """Return ∂f_i/∂x_i and ∂F/∂x_i along each coordinate of the smooth components' actions."""
    rows, record = [], []
    for play in plays:
        for slope in policy_slopes(env, play.policy, settings.held_out()):
            rows.append(
                (
                    play.name,
                    slope.component,
                    str(slope.coordinate),
                    short(slope.own),
                    _sign(slope.own),
                    short(slope.team),
                    _sign(slope.team),
                )
            )
            record.append(
                {
                    "play": play.name,
                    "component": slope.component,
                    "coordinate": slope.coordinate,
                    "own": slope.own.as_json(),
                    "team": slope.team.as_json(),
                }
            )
    return Section(
        "slopes",
        "Stationarity: slopes at the learned point",
        {"slopes": record},
        (
            TextTable(
                "Change a session per unit range of the coordinate, same users and luck both ways",
                ("play", "component", "coordinate", "of own f_i", "", "of team F", ""),
                rows,
                (
                    "A stationary point of a motive has slopes whose intervals hold zero (or lead "
                    "out of the action's bounds). Discrete components are left out.",
                ),
                prose=True,
            ),
        ),
    )


def _sign(slope: Interval) -> str:
    if slope.low > 0.0:
        return "↑"
    return "↓" if slope.high < 0.0 else "holds 0"
