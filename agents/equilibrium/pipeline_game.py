"""The recommender pipeline as a decision game: static decisions of some components, others frozen.

The deciding components hold one action for the whole session; the others play given policies, or
their default actions. A static decision is a weaker opponent than a learned policy, and a much
cheaper one: best responses among static decisions bound the gain of a learned one from below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from agents.baselines.teams import StaticTeam
from agents.equilibrium.action_cube import coordinates, decode, encode
from agents.equilibrium.decision_game import Outcome, Sessions
from agents.equilibrium.lineups import Lineup, ReplayEnv, play_lineups
from agents.equilibrium.normal_form import Floats
from marec_env.errors import ConfigError
from marec_env.evaluation.policies import TeamPolicy
from marec_env.vector import Action

__all__ = ["PipelineGame"]

ROWS = 4096
"""Sessions simulated at once; larger batches gain nothing on a processor's caches."""


@dataclass
class PipelineGame:
    """See the module; a :class:`agents.equilibrium.decision_game.DecisionGame`."""

    env: ReplayEnv
    defaults: Mapping[str, Action]
    """Per agent its default action, without a batch dimension."""
    components: tuple[str, ...] = ()
    """Those that decide; all agents unless given."""
    frozen: Mapping[str, TeamPolicy] = field(default_factory=dict)
    """Policies of components that do not decide; the default action unless given."""
    per: Literal["session", "request"] = "session"
    """Whether objectives are summed over the session, or averaged over its requests and counted for
    a session of full length: a sum already pays every component for keeping the user. F is a sum
    either way, since staying is part of it."""

    def __post_init__(self) -> None:
        self.components = self.components or tuple(self.env.agents)
        unknown = [c for c in (*self.components, *self.frozen) if c not in self.env.agents]
        if unknown:
            raise ConfigError(
                f"no component '{unknown[0]}'; there are {', '.join(self.env.agents)}"
            )
        self.dims = tuple(coordinates(self.env.action_spaces[c]) for c in self.components)
        self._idle = StaticTeam(self.defaults, "default")

    def default(self) -> Floats:
        """Return the deciding components' default actions, ``[sum(dims)]``."""
        return np.concatenate(
            [encode(self.env.action_spaces[c], self.defaults[c]) for c in self.components]
        )

    def actions(self, decision: Floats) -> dict[str, Action]:
        """Return the actions of a decision ``[sum(dims)]``, without a batch dimension."""
        ends = np.cumsum(self.dims)
        return {
            component: decode(self.env.action_spaces[component], decision[end - width : end])
            for component, width, end in zip(self.components, self.dims, ends, strict=True)
        }

    def lineup(self, decision: Floats) -> Lineup:
        """Return who plays what under a decision."""
        static = StaticTeam(self.actions(decision))
        return {
            agent: static if agent in self.components else self.frozen.get(agent, self._idle)
            for agent in self.env.agents
        }

    def play(self, decisions: Floats, sessions: Sessions) -> Outcome:
        """See :class:`agents.equilibrium.decision_game.DecisionGame`."""
        batch = max(1, ROWS // len(sessions))
        parts = [
            play_lineups(
                self.env,
                [self.lineup(decision) for decision in decisions[first : first + batch]],
                sessions,
                self.components,
            )
            for first in range(0, len(decisions), batch)
        ]
        outcome = _joined(parts)
        if self.per == "session":
            return outcome
        return _per_request(outcome, self.env.max_requests)


def _joined(parts: Sequence[Outcome]) -> Outcome:
    return Outcome(
        np.concatenate([p.objectives for p in parts]),
        np.concatenate([p.team for p in parts]),
        {name: np.concatenate([p.outcomes[name] for p in parts]) for name in parts[0].outcomes},
    )


def _per_request(outcome: Outcome, full: int) -> Outcome:
    rate = outcome.objectives / outcome.outcomes["length"][..., None]
    return Outcome(full * rate, outcome.team, outcome.outcomes)
