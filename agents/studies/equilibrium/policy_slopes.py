"""First-order conditions of learned play: a component's actions are shifted a little, both ways.

At a policy that maximises a component's objective against the others, no direction of change has a
slope, and a constant shift of one coordinate of its actions is one such direction. Only Box actions
can be shifted; discrete choices are left to best responses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from agents.studies.equilibrium.decision_game import Sessions
from agents.studies.equilibrium.intervals import Interval, mean_interval
from agents.studies.equilibrium.lineups import ReplayEnv, play_lineups
from agents.studies.equilibrium.stationarity import STEP
from marec_env.evaluation.policies import TeamPolicy
from marec_env.vector import Action

__all__ = ["PolicySlope", "Shifted", "policy_slopes"]


class Shifted:
    """A team whose one component's Box action is moved along one coordinate, within bounds."""

    def __init__(
        self, team: TeamPolicy, component: str, coordinate: int, shift: float, space: spaces.Box
    ) -> None:
        """Args:
        team: who decides.
        component: whose action is moved.
        coordinate: of its flat action.
        shift: in units of the action.
        space: its bounds.
        """
        self.team, self.component = team, component
        self._coordinate, self._shift = coordinate, shift
        self._low, self._high = torch.as_tensor(space.low), torch.as_tensor(space.high)

    def reset(self) -> None:
        """Begin new episodes."""
        self.team.reset()

    def act(self, observations: Mapping[str, Tensor]) -> dict[str, Action]:
        """Act as the team does, one coordinate moved."""
        actions = self.team.act(observations)
        action = actions.get(self.component)
        if isinstance(action, Tensor):
            low, high = self._low.to(action.device), self._high.to(action.device)
            moved = torch.minimum(torch.maximum(action, low), high).clone()
            moved[:, self._coordinate] += self._shift
            moved = torch.minimum(torch.maximum(moved, low), high)
            actions = {**actions, self.component: moved}
        return actions


@dataclass(frozen=True, slots=True)
class PolicySlope:
    """Per session and per unit range of the coordinate."""

    component: str
    coordinate: int
    own: Interval
    """Of the component's own objective: not zero where it would rather play otherwise."""
    team: Interval
    """Of F: not zero where the team would be better off."""


def policy_slopes(
    env: ReplayEnv, team: TeamPolicy, sessions: Sessions, step: float = STEP
) -> list[PolicySlope]:
    """Return the slopes of f_i and F along every coordinate of every component with Box actions.

    Args:
        env: the environment.
        team: the play in question.
        sessions: int64 ``[S]``, the same both ways.
        step: shift either way, as a share of the coordinate's range.
    """
    slopes = []
    for component in env.agents:
        space = env.action_spaces[component]
        if not (isinstance(space, spaces.Box) and len(space.shape) == 1):
            continue
        width = space.high - space.low
        for coordinate in range(space.shape[0]):
            shift = step * float(width[coordinate])
            ways = [Shifted(team, component, coordinate, s, space) for s in (-shift, shift)]
            outcomes = [
                play_lineups(env, [dict.fromkeys(env.agents, way)], sessions, (component,))
                for way in ways
            ]
            own, whole = (
                mean_interval((high - low) / (2.0 * step))
                for low, high in (
                    tuple(o.objectives[0, :, 0] for o in outcomes),
                    tuple(np.asarray(o.team[0]) for o in outcomes),
                )
            )
            slopes.append(PolicySlope(component, coordinate, own, whole))
    return slopes
