"""Many teams on the same sessions at once: exact common random numbers, one batch.

A line-up names, for every component, the policy that plays it. ``P`` line-ups on ``S`` sessions are
``P · S`` rows of one simulator, row ``p · S + s`` being session ``s`` under line-up ``p``; each
distinct policy is asked once a turn, for all its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from agents.baselines.teams import hand_set_actions
from agents.studies.equilibrium.normal_form import Floats
from marec_env.evaluation.policies import TeamPolicy
from marec_env.simulator import Simulator
from marec_env.vector import Action, VectorEnv

if TYPE_CHECKING:
    from marec_env.world import World

EVALUATION_SEED = 1_000_003
"""Of the users met here; training runs use their own small seeds, so no session is shared."""
_KEPT = 3  # simulators of the latest sizes are kept, since their memory is allocated once

Lineup = Mapping[str, TeamPolicy]
Sessions = NDArray[np.int64]
"""Numbers of sessions, ``[S]``: equal numbers are equal users with equal luck, whoever plays."""


@dataclass(frozen=True, slots=True)
class Payoffs:
    """What ``P`` line-ups or decisions led to over ``S`` sessions."""

    objectives: Floats
    """``[P, S, n]``: each deciding component's own objective f_i, summed over the session."""
    team: Floats
    """``[P, S]``: the team objective F, summed over the session."""
    outcomes: Mapping[str, Floats] = field(default_factory=dict)
    """``[P, S]`` each: what the user got (``clicks``, ``length``)."""

    def mixed(self, component: int, own_share: float) -> Floats:
        """Return λ f_i + (1 − λ) F, ``[P, S]``, with λ = ``own_share``: 1 is selfish, 0 shared."""
        return own_share * self.objectives[..., component] + (1.0 - own_share) * self.team

    @classmethod
    def joined(cls, parts: Sequence[Payoffs]) -> Payoffs:
        """Return several line-ups' payoffs on the same sessions as one."""
        outcomes = {n: np.concatenate([p.outcomes[n] for p in parts]) for n in parts[0].outcomes}
        objectives = np.concatenate([p.objectives for p in parts])
        return cls(objectives, np.concatenate([p.team for p in parts]), outcomes)

    def rows(self, rows: slice) -> Payoffs:
        """Return a copy of some line-ups: a view would keep them all in memory."""
        outcomes = {name: values[rows].copy() for name, values in self.outcomes.items()}
        return Payoffs(self.objectives[rows].copy(), self.team[rows].copy(), outcomes)

    @property
    def values(self) -> dict[str, Floats]:
        """Return ``team`` and the outcomes, ``[P, S]`` each."""
        return {"team": self.team, **self.outcomes}


class Replay:
    """Plays chosen sessions of the recommender's simulator, any number of them at once; equal seeds
    and session numbers are equal users and luck.
    """

    def __init__(self, world: World, seed: int = EVALUATION_SEED) -> None:
        self.world, self.seed = world, seed
        self.max_requests = world.config.max_requests
        self._of_size = lru_cache(_KEPT)(lambda rows: Simulator(world, rows, autoreset=False))
        one = self._of_size(1)
        self.agents, self.action_spaces = one.agents, one.action_spaces
        self.defaults = hand_set_actions(one)
        """Each agent's default action, without a batch dimension."""

    def begin(self, session_ids: Tensor) -> VectorEnv:
        """Return an environment at the start of these sessions, int64 ``[B]``."""
        simulator = self._of_size(len(session_ids))
        simulator.begin(session_ids, self.seed)
        return simulator


class _Rows(NamedTuple):
    """A policy, its rows (int64 ``[R]``), and where in them it plays each component, bool ``[R]``;
    components that it plays nowhere are left out.
    """

    policy: TeamPolicy
    rows: Tensor
    parts: dict[str, Tensor]


def _rows_of_policies(
    lineups: Sequence[Lineup], sessions: int, agents: Sequence[str]
) -> list[_Rows]:
    found = []
    for policy in {id(p): p for lineup in lineups for p in lineup.values()}.values():
        plays = torch.tensor([[lineup[agent] is policy for agent in agents] for lineup in lineups])
        plays = plays.repeat_interleave(sessions, dim=0)
        rows = plays.any(dim=1).nonzero().squeeze(1)
        parts = {a: plays[rows, i] for i, a in enumerate(agents) if bool(plays[rows, i].any())}
        found.append(_Rows(policy, rows, parts))
    return found


def play_lineups(
    replay: Replay,
    lineups: Sequence[Lineup],
    sessions: Sessions,
    components: Sequence[str] | None = None,
    at_once: int | None = None,
) -> Payoffs:
    """Play each of ``P`` line-ups on each of ``S`` sessions until its episode ends, and add up.

    Objectives are of ``components``, in this order; of all unless given. All line-ups are played
    at once unless told otherwise.
    """
    wanted, size = tuple(components or replay.agents), at_once or len(lineups)
    batches = [lineups[first : first + size] for first in range(0, len(lineups), size)]
    return Payoffs.joined([_play(replay, batch, sessions, wanted) for batch in batches])


@torch.no_grad()
def _play(
    replay: Replay, lineups: Sequence[Lineup], sessions: Sessions, wanted: Sequence[str]
) -> Payoffs:
    played = _rows_of_policies(lineups, len(sessions), replay.agents)
    for one in played:
        one.policy.reset()
    env = replay.begin(torch.as_tensor(np.tile(sessions, len(lineups))))
    total = len(lineups) * len(sessions)
    alive = torch.ones(total, dtype=torch.bool, device=env.observe(env.turns[0][0]).device)
    sums: dict[str, Tensor] = {}
    counted = ("clicks", "team_reward", *(f"objective/{agent}" for agent in wanted))
    length = torch.zeros(total, device=alive.device)
    while bool(alive.any()):
        for turn in env.turns:
            env.act(_turn_actions(env, turn, played, total))
        step = env.advance()
        length += alive.to(torch.float32)
        for name in counted:
            value = step.metrics[name]
            kept = torch.where(alive, value, torch.zeros_like(value))
            sums[name] = kept if name not in sums else sums[name] + kept
        alive = alive & ~(step.terminated | step.truncated)
    shape = (len(lineups), len(sessions))
    sums["length"] = length
    array = {name: v.double().cpu().numpy().reshape(shape) for name, v in sums.items()}
    return Payoffs(
        objectives=np.stack([array[f"objective/{agent}"] for agent in wanted], axis=-1),
        team=array["team_reward"],
        outcomes={name: array[name] for name in ("clicks", "length")},
    )


def _turn_actions(
    env: VectorEnv, turn: Sequence[str], played: Sequence[_Rows], total: int
) -> dict[str, Action]:
    """Ask every policy for its parts of the turn and put the answers in their rows."""
    observations = {agent: env.observe(agent) for agent in turn}
    stores: dict[str, list[Tensor]] = {}
    for policy, rows, plays in played:
        parts = [agent for agent in turn if agent in plays]
        answers = policy.act({a: observations[a][rows] for a in parts}) if parts else {}
        for agent in parts:
            answer, mask = answers[agent], plays[agent]
            pieces = answer if isinstance(answer, tuple) else (answer,)
            if agent not in stores:
                stores[agent] = [p.new_zeros((total, *p.shape[1:])) for p in pieces]
            for store, piece in zip(stores[agent], pieces, strict=True):
                store[rows[mask]] = piece[mask]
    return {
        agent: tuple(v) if isinstance(env.action_spaces[agent], spaces.Tuple) else v[0]
        for agent, v in stores.items()
    }
