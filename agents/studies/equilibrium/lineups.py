"""Many teams on the same sessions at once: exact common random numbers, one batch.

A line-up names, for every component, the policy that plays it. ``P`` line-ups on ``S`` sessions are
``P · S`` rows of one simulator, row ``p · S + s`` being session ``s`` under line-up ``p``; each
distinct policy is asked once a turn, for all its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.baselines.teams import hand_set_actions
from agents.studies.equilibrium.normal_form import Floats
from marec_env.evaluation.policies import TeamPolicy
from marec_env.simulator import Simulator
from marec_env.vector import Action, VectorEnv

if TYPE_CHECKING:
    from marec_env.world import World

__all__ = ["EVALUATION_SEED", "Lineup", "Payoffs", "Replay", "Sessions", "play_lineups"]

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

    @property
    def values(self) -> dict[str, Floats]:
        """Return ``team`` and the outcomes, ``[P, S]`` each."""
        return {"team": self.team, **self.outcomes}


class Replay:
    """Plays chosen sessions of the recommender's simulator, any number of them at once."""

    def __init__(self, world: World, seed: int = EVALUATION_SEED) -> None:
        """Args:
        world: what is simulated.
        seed: equal seeds and session numbers are equal users and luck.
        """
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


@dataclass(slots=True)
class _Rows:
    """A policy, its rows, and the components it plays in each of them."""

    policy: TeamPolicy
    rows: Tensor
    """Int64 ``[R]``."""
    parts: dict[str, Tensor]
    """Per component, bool ``[R]``: the rows in which the policy plays it."""


def _rows_of_policies(
    lineups: Sequence[Lineup], sessions: int, agents: Sequence[str]
) -> list[_Rows]:
    policies = {id(policy): policy for lineup in lineups for policy in lineup.values()}
    found = []
    for key, policy in policies.items():
        plays = torch.tensor(
            [[id(lineup[agent]) == key for agent in agents] for lineup in lineups]
        ).repeat_interleave(sessions, dim=0)
        rows = plays.any(dim=1).nonzero().squeeze(1)
        parts = {a: plays[rows, i] for i, a in enumerate(agents) if bool(plays[rows, i].any())}
        found.append(_Rows(policy, rows, parts))
    return found


@torch.no_grad()
def play_lineups(
    replay: Replay,
    lineups: Sequence[Lineup],
    sessions: Sessions,
    components: Sequence[str] | None = None,
) -> Payoffs:
    """Play every line-up on every session until its episode ends.

    Args:
        replay: plays the sessions.
        lineups: ``P`` of them, each naming a policy for every agent.
        sessions: int64 ``[S]``.
        components: whose objectives are wanted, in this order; all unless given.

    Returns:
        Sums over the episode: objectives ``[P, S, n]``, team reward and outcomes ``[P, S]``.
    """
    wanted = tuple(replay.agents if components is None else components)
    played = _rows_of_policies(lineups, len(sessions), replay.agents)
    for one in played:
        one.policy.reset()
    env = replay.begin(torch.as_tensor(np.tile(sessions, len(lineups))))
    total = len(lineups) * len(sessions)
    alive = torch.ones(total, dtype=torch.bool, device=env.observe(env.turns[0][0]).device)
    sums: dict[str, Tensor] = {}
    length = torch.zeros(total, device=alive.device)
    while bool(alive.any()):
        for turn in env.turns:
            env.act(_turn_actions(env, turn, played, total))
        step = env.advance()
        length += alive.to(torch.float32)
        for name, value in step.metrics.items():
            kept = torch.where(alive, value, torch.zeros_like(value))
            sums[name] = kept if name not in sums else sums[name] + kept
        alive = alive & ~(step.terminated | step.truncated)
    shape = (len(lineups), len(sessions))
    array = {name: v.double().cpu().numpy().reshape(shape) for name, v in sums.items()}
    return Payoffs(
        objectives=np.stack([array[f"objective/{agent}"] for agent in wanted], axis=-1),
        team=array["team_reward"],
        outcomes={
            "clicks": array["clicks"],
            "length": length.double().cpu().numpy().reshape(shape),
        },
    )


def _turn_actions(
    env: VectorEnv, turn: Sequence[str], played: Sequence[_Rows], total: int
) -> dict[str, Action]:
    """Ask every policy for its parts of the turn and put the answers in their rows."""
    observations = {agent: env.observe(agent) for agent in turn}
    actions: dict[str, list[Tensor]] = {}
    whole: dict[str, bool] = {}
    for one in played:
        parts = [agent for agent in turn if agent in one.parts]
        if not parts:
            continue
        answers = one.policy.act({agent: observations[agent][one.rows] for agent in parts})
        for agent in parts:
            answer = answers[agent]
            pieces = answer if isinstance(answer, tuple) else (answer,)
            whole[agent] = not isinstance(answer, tuple)
            if agent not in actions:
                actions[agent] = [p.new_zeros((total, *p.shape[1:])) for p in pieces]
            mask = one.parts[agent]
            for store, piece in zip(actions[agent], pieces, strict=True):
                store[one.rows[mask]] = piece[mask]
    return {agent: v[0] if whole[agent] else tuple(v) for agent, v in actions.items()}
