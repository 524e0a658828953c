"""The recommender pipeline as a decision game: static decisions of some components, others frozen.

The deciding components hold one action for the whole session; the others play given policies, or
their default actions. A static decision is a weaker opponent than a learned policy, and a much
cheaper one: best responses among static decisions bound the gain of a learned one from below.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from agents.baselines.teams import StaticTeam
from agents.studies.equilibrium.action_cube import coordinates, decode, encode
from agents.studies.equilibrium.decision_game import Outcome, Sessions
from agents.studies.equilibrium.lineups import Lineup, ReplayEnv, play_lineups
from agents.studies.equilibrium.normal_form import Floats
from marec_env.errors import ConfigError
from marec_env.evaluation.policies import TeamPolicy
from marec_env.vector import Action

__all__ = ["PipelineGame"]

ROWS = 1024
"""Sessions simulated at once; larger batches lose where the funnel is wide."""

REMEMBERED = 4096
"""Decisions whose outcomes are kept: a search asks again for discrete decisions, often."""


@dataclass
class PipelineGame:
    """See the module; a :class:`agents.studies.equilibrium.decision_game.DecisionGame`."""

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
        self._played: OrderedDict[bytes, Outcome] = OrderedDict()

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
        """See :class:`agents.studies.equilibrium.decision_game.DecisionGame`.

        Points that decode to the same actions are the same decision, and are simulated once.
        """
        keys = [self._key(decision, sessions) for decision in decisions]
        new = {k: d for k, d in zip(keys, decisions, strict=True) if k not in self._played}
        self._played.update(zip(new, self._simulated(list(new.values()), sessions), strict=True))
        for key in keys:
            self._played.move_to_end(key)
        outcome = _joined([self._played[key] for key in keys])
        while len(self._played) > REMEMBERED:
            self._played.popitem(last=False)
        if self.per == "session":
            return outcome
        return _per_request(outcome, self.env.max_requests)

    def _key(self, decision: Floats, sessions: Sessions) -> bytes:
        actions = self.actions(decision).items()
        point = [encode(self.env.action_spaces[name], action) for name, action in actions]
        return np.concatenate(point).tobytes() + np.asarray(sessions).tobytes()

    def _simulated(self, decisions: Sequence[Floats], sessions: Sessions) -> list[Outcome]:
        """Return the outcome of each decision, with a first dimension of 1."""
        found: list[Outcome] = []
        batch = max(1, ROWS // len(sessions))
        for first in range(0, len(decisions), batch):
            lineups = [self.lineup(decision) for decision in decisions[first : first + batch]]
            played = play_lineups(self.env, lineups, sessions, self.components)
            found += [_one(played, row) for row in range(len(lineups))]
        return found


def _one(outcome: Outcome, row: int) -> Outcome:
    # Copies: a view would keep its whole batch in memory.
    part = slice(row, row + 1)
    return Outcome(
        outcome.objectives[part].copy(),
        outcome.team[part].copy(),
        {name: values[part].copy() for name, values in outcome.outcomes.items()},
    )


def _joined(parts: Sequence[Outcome]) -> Outcome:
    return Outcome(
        np.concatenate([p.objectives for p in parts]),
        np.concatenate([p.team for p in parts]),
        {name: np.concatenate([p.outcomes[name] for p in parts]) for name in parts[0].outcomes},
    )


def _per_request(outcome: Outcome, full: int) -> Outcome:
    rate = outcome.objectives / outcome.outcomes["length"][..., None]
    return Outcome(full * rate, outcome.team, outcome.outcomes)
