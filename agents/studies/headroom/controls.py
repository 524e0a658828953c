"""Two controls that show whether a team owes its result to what it observes.

A team may beat every static decision because it reacts to the session, or because its typical
decision is a better static one than the search found. The controls keep everything but the link
between a session and what the team sees of it:

* *shuffled*: at every request each session is acted on as if it were another, drawn from recorded
  play of the same team at the same request number;
* *frozen*: the mean of the recorded actions, in every request of every session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from agents.baselines.teams import StaticTeam
from marec_env import random
from marec_env.evaluation.policies import TeamPolicy
from marec_env.simulator import Simulator
from marec_env.vector import Action
from marec_env.world import World

__all__ = ["RecordedPlay", "ShuffledObservations", "frozen_mean", "record_play"]


@dataclass
class RecordedPlay:
    """What a team saw and did in sessions that were still going on."""

    observations: list[dict[str, Tensor]] = field(default_factory=list)
    """Per request number, per agent float32 ``[n_t, d_i]``; row ``j`` is one session for all."""
    sums: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)
    """Per agent the sum of its actions (of each part, where an action has several)."""
    kinds: dict[str, tuple[torch.dtype, ...]] = field(default_factory=dict)
    requests: int = 0
    """All requests recorded."""


@torch.no_grad()
def record_play(world: World, policy: TeamPolicy, sessions: int, seed: int) -> RecordedPlay:
    """Play ``sessions`` sessions of the cohort ``seed`` and record the requests made in them."""
    simulator = Simulator(world, sessions, autoreset=False)
    simulator.begin(torch.arange(sessions), seed)
    policy.reset()
    play = RecordedPlay()
    alive = torch.ones(sessions, dtype=torch.bool, device=simulator.device)
    while bool(alive.any()):
        seen: dict[str, Tensor] = {}
        for turn in simulator.turns:
            observations = {agent: simulator.observe(agent) for agent in turn}
            actions = policy.act(observations)
            simulator.act(actions)
            seen |= {agent: value[alive].clone() for agent, value in observations.items()}
            for agent, action in actions.items():
                _add(play, agent, action, alive)
        play.observations.append(seen)
        play.requests += int(alive.sum())
        step = simulator.advance()
        alive = alive & ~(step.terminated | step.truncated)
    return play


def _add(play: RecordedPlay, agent: str, action: Action, alive: Tensor) -> None:
    parts = action if isinstance(action, tuple) else (action,)
    sums = tuple(part[alive].double().sum(0) for part in parts)
    earlier = play.sums.get(agent)
    play.sums[agent] = (
        sums if earlier is None else tuple(a + b for a, b in zip(earlier, sums, strict=True))
    )
    play.kinds[agent] = tuple(part.dtype for part in parts)


def frozen_mean(play: RecordedPlay, name: str = "frozen mean") -> StaticTeam:
    """Return the team that always plays the recorded mean; whole choices are rounded."""
    actions: dict[str, Action] = {}
    for agent, sums in play.sums.items():
        parts = []
        for total, kind in zip(sums, play.kinds[agent], strict=True):
            mean = total / play.requests
            parts.append((mean if kind.is_floating_point else mean.round()).to(kind))
        actions[agent] = parts[0] if len(parts) == 1 else tuple(parts)
    return StaticTeam(actions, name)


class ShuffledObservations:
    """A team that is shown, for each session, what it saw in another one at the same request."""

    def __init__(self, policy: TeamPolicy, play: RecordedPlay, seed: int) -> None:
        """Args:
        policy: the team.
        play: its own recorded play.
        seed: of the draws of other sessions.
        """
        self._policy, self._play, self._seed = policy, play, seed
        self.reset()

    def reset(self) -> None:
        """Begin new episodes."""
        self._policy.reset()
        self._request = -1
        self._heard: set[str] = set()

    def begin(self, sessions: Tensor) -> None:
        """Draw for the sessions with these keys, int64 ``[B]``, whatever else is in the batch."""
        self._keys = sessions

    def act(self, observations: Mapping[str, Tensor]) -> dict[str, Action]:
        """Act on the observations of other sessions."""
        if self._request < 0 or self._heard & observations.keys():  # the next request's first turn
            self._request = min(self._request + 1, len(self._play.observations) - 1)
            self._heard = set()
            seen = self._play.observations[self._request]
            rows = len(next(iter(seen.values())))
            stream = f"control/shuffled/{self._seed}"
            drawn = random.integers(self._keys, self._request, stream, 1, rows)
            self._rows = drawn.squeeze(1)
        self._heard |= observations.keys()
        seen = self._play.observations[self._request]
        return self._policy.act({agent: seen[agent][self._rows] for agent in observations})
