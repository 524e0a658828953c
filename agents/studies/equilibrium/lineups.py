"""Many teams on the same sessions at once: exact common random numbers, one batch.

A line-up names, for every component, the policy that plays it. ``P`` line-ups on ``S`` sessions are
``P · S`` rows of one simulator, row ``p · S + s`` being session ``s`` under line-up ``p``; each
distinct policy is asked once a turn, for all its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from agents.studies.equilibrium.decision_game import Outcome, Sessions
from marec_env.evaluation.policies import TeamPolicy
from marec_env.vector import Action, VecStep, VectorEnv

__all__ = ["Lineup", "ReplayEnv", "play_lineups"]

Lineup = Mapping[str, TeamPolicy]


class ReplayEnv(VectorEnv, Protocol):
    """A batched environment that can play chosen sessions."""

    max_requests: int
    """Requests of a session of full length."""

    def begin(self, session_ids: Tensor) -> VecStep:
        """Start an episode for each id, int64 ``[B]``; equal ids are equal users and luck."""
        ...


@dataclass(slots=True)
class _Cast:
    """A policy, its rows, and the components it plays in each of them."""

    policy: TeamPolicy
    rows: Tensor
    """Int64 ``[R]``."""
    parts: dict[str, Tensor]
    """Per component, bool ``[R]``: the rows in which the policy plays it."""


def _casts(lineups: Sequence[Lineup], sessions: int, agents: Sequence[str]) -> list[_Cast]:
    policies = {id(policy): policy for lineup in lineups for policy in lineup.values()}
    found = []
    for key, policy in policies.items():
        plays = torch.tensor(
            [[id(lineup[agent]) == key for agent in agents] for lineup in lineups]
        ).repeat_interleave(sessions, dim=0)
        rows = plays.any(dim=1).nonzero().squeeze(1)
        parts = {a: plays[rows, i] for i, a in enumerate(agents) if bool(plays[rows, i].any())}
        found.append(_Cast(policy, rows, parts))
    return found


@torch.no_grad()
def play_lineups(
    env: ReplayEnv,
    lineups: Sequence[Lineup],
    sessions: Sessions,
    components: Sequence[str] | None = None,
) -> Outcome:
    """Play every line-up on every session until its episode ends.

    Args:
        env: any number of rows may be begun in it.
        lineups: ``P`` of them, each naming a policy for every agent.
        sessions: int64 ``[S]``.
        components: whose objectives are wanted, in this order; all unless given.

    Returns:
        Sums over the episode: objectives ``[P, S, n]``, team reward and outcomes ``[P, S]``.
    """
    wanted = tuple(env.agents if components is None else components)
    casts = _casts(lineups, len(sessions), env.agents)
    for cast in casts:
        cast.policy.reset()
    step = env.begin(torch.as_tensor(np.tile(sessions, len(lineups))))
    total = len(lineups) * len(sessions)
    alive = torch.ones(total, dtype=torch.bool, device=step.terminated.device)
    sums: dict[str, Tensor] = {}
    length = torch.zeros(total, device=alive.device)
    while bool(alive.any()):
        for turn in env.turns:
            env.act(_turn_actions(env, turn, casts, total))
        step = env.advance()
        weight = alive.to(torch.float32)
        length += weight
        for name, value in step.metrics.items():
            kept = torch.where(alive, value, torch.zeros_like(value))
            sums[name] = kept if name not in sums else sums[name] + kept
        alive = alive & ~(step.terminated | step.truncated)
    shape = (len(lineups), len(sessions))
    array = {name: v.double().cpu().numpy().reshape(shape) for name, v in sums.items()}
    lengths = length.double().cpu().numpy().reshape(shape)
    return Outcome(
        objectives=np.stack([array[f"objective/{agent}"] for agent in wanted], axis=-1),
        team=array["team_reward"],
        outcomes={"clicks": array["clicks"], "length": lengths},
    )


def _turn_actions(
    env: VectorEnv, turn: Sequence[str], casts: Sequence[_Cast], total: int
) -> dict[str, Action]:
    """Ask every policy for its parts of the turn and put the answers in their rows."""
    observations = {agent: env.observe(agent) for agent in turn}
    actions: dict[str, list[Tensor]] = {}
    whole: dict[str, bool] = {}
    for cast in casts:
        parts = [agent for agent in turn if agent in cast.parts]
        if not parts:
            continue
        answers = cast.policy.act({agent: observations[agent][cast.rows] for agent in parts})
        for agent in parts:
            answer = answers[agent]
            pieces = answer if isinstance(answer, tuple) else (answer,)
            whole[agent] = not isinstance(answer, tuple)
            if agent not in actions:
                actions[agent] = [p.new_zeros((total, *p.shape[1:])) for p in pieces]
            mask = cast.parts[agent]
            for store, piece in zip(actions[agent], pieces, strict=True):
                store[cast.rows[mask]] = piece[mask]
    return {agent: v[0] if whole[agent] else tuple(v) for agent, v in actions.items()}
