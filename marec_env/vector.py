"""The batched environment interface: arrays in, arrays out, for any cooperative environment.

Learners and evaluation code in ``agents`` know only this protocol. The recommender pipeline
(:func:`make_vec`), the matrix games of the tests and any PettingZoo parallel environment
(:mod:`agents.pettingzoo_adapter`) implement it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from gymnasium import spaces
from torch import Tensor

from marec_env.compiled import eager

__all__ = [
    "Action",
    "Rows",
    "VecStep",
    "VectorEnv",
    "add_sums",
    "episode_outcomes",
    "map_parts",
    "means",
    "no_sums",
]

Action = Tensor | tuple[Tensor, ...]
"""A batch of actions of one agent. Box: float32 ``[B, n]``; Discrete: int64 ``[B]``; MultiDiscrete:
int64 ``[B, n]``; Tuple: a tuple of such batches."""


P = TypeVar("P")


def map_parts(function: Callable[[Tensor], P], action: Action) -> P | tuple[P, ...]:
    """Return what a function makes of an action: of each part of a tuple."""
    return tuple(map(function, action)) if isinstance(action, tuple) else function(action)


def means(values: Mapping[str, Tensor]) -> str:
    """Return the mean of each tensor by its name, in a line."""
    return ", ".join(f"{name} {float(v.float().mean()):.3g}" for name, v in values.items())


class Rows:
    """Some of ``B`` sessions.

    On the CPU only they are computed. Elsewhere all are, and a mask decides what is kept: no shape
    depends on numbers, and nothing waits for the device.
    """

    __slots__ = ("index", "where")

    def __init__(self, where: Tensor | None = None) -> None:
        """Args:
        where: bool ``[B]``, which; all if ``None``.
        """
        self.where = where
        self.index = where.nonzero().squeeze(1) if where is not None and eager(where) else None
        """Int64 ``[n]`` on the CPU, unless all."""

    def __bool__(self) -> bool:
        """Whether there may be any."""
        return self.index is None or len(self.index) > 0

    def of(self, values: Tensor) -> Tensor:
        """Return what is computed of ``[B, ...]`` values: ``[n, ...]``, or all of them."""
        return values if self.index is None else values[self.index]

    def put(self, target: Tensor, values: Tensor | float) -> None:
        """Write numbers, one or as many as :meth:`of` returns, to these rows of ``[B, ...]``."""
        if self.index is not None:
            target[self.index] = values
            return
        if self.where is not None:
            where = self.where.view(-1, *[1] * (target.dim() - 1))
            if isinstance(values, float | int):
                target.masked_fill_(where, values)
                return
            values = values.where(where, target)
        target.fill_(values) if isinstance(values, float | int) else target.copy_(values)

    def put_in(self, base: Tensor, values: Tensor | float) -> Tensor:
        """Return a copy of ``base`` with numbers put as :meth:`put` does."""
        found = base.clone()
        self.put(found, values)
        return found


@dataclass(slots=True)
class VecStep:
    """What one environment step of all ``B`` sessions returned.

    A session whose episode ended is reset within the same step (autoreset): ``observations`` and
    ``state`` then belong to the new episode, ``final_observations`` and ``final_state`` to the end
    of the old one. A truncated episode bootstraps from the final state, a terminated one does not.
    """

    observations: dict[str, Tensor]
    """Per agent, float32 ``[B, d_i]``, for the next decision."""
    state: Tensor
    """Float32 ``[B, s]``, the central critic's input, for the next decision."""
    rewards: dict[str, Tensor]
    """Per agent, float32 ``[B]``."""
    terminated: Tensor
    """Bool ``[B]``: the episode ended by itself (the user left)."""
    truncated: Tensor
    """Bool ``[B]``: the episode was cut off by a step limit; exclusive with ``terminated``."""
    final_state: Tensor
    """Float32 ``[B, s]``; equals the state before autoreset; meaningful where the episode ended."""
    final_observations: dict[str, Tensor]
    """Per agent, float32 ``[B, d_i]``; meaningful where the episode ended."""
    active: dict[str, Tensor] = field(default_factory=dict)
    """Per agent, bool ``[B]``: whether the agent acts at the next decision; a missing agent is
    always active."""
    action_masks: dict[str, Any] = field(default_factory=dict)
    """Per agent with discrete actions, bool ``[B, n]`` (Discrete) or a tuple of such
    (MultiDiscrete): which actions are allowed at the next decision; a missing agent may do any."""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """Values of this step, float32 ``[B]`` each (``team_reward``, ``objective/recall_0``,
    ``term/retention``, ...)."""
    episodes: dict[str, Tensor] = field(default_factory=dict)
    """Outcomes of the episodes that ended in this step (``return``, ``length``, ``clicks``, ...),
    float32 ``[n]`` each, in session order; but on a device whose shapes are fixed (:class:`Rows`)
    ``[B]``, which mean something where one ended."""
    agent_terminated: dict[str, Tensor] = field(default_factory=dict)
    """Per agent, bool ``[B]``, where an agent may end before its team: it ended by itself in
    this step."""
    agent_truncated: dict[str, Tensor] = field(default_factory=dict)
    """The same: it was cut off."""

    def __repr__(self) -> str:
        """Say sizes and means, a few lines."""
        ended = self.terminated | self.truncated
        seen = ", ".join(f"{name} {list(seen.shape)}" for name, seen in self.observations.items())
        # Off the CPU there is a row for each session, ended or not.
        episodes = {
            name: values[ended] if len(values) == len(ended) else values
            for name, values in self.episodes.items()
            if not name.endswith("_per_request")
        }
        lines = [
            f"VecStep of {len(ended)} sessions: {int(self.terminated.sum())} ended, "
            f"{int(self.truncated.sum())} cut off",
            f"observations: {seen}; state {list(self.state.shape)}",
            f"mean rewards: {means(self.rewards)}",
            *([f"mean metrics: {means(self.metrics)}"] if self.metrics else []),
            *([f"means of ended episodes: {means(episodes)}"] if episodes else []),
        ]
        return "\n  ".join(lines)


@runtime_checkable
class VectorEnv(Protocol):
    """``B`` sessions stepped at once.

    One step consists of one or more *turns*. In a parallel environment there is one turn, in which
    all agents act on the observations that the last step returned. In a sequential one each agent
    has a turn and sees what the agents before it did: ask :meth:`observe` for the turn's
    observations, hand its actions to :meth:`act`, and close the step with :meth:`advance`::

        step = env.reset(seed=0)
        while True:
            for turn in env.turns:
                env.act({agent: policy(agent, env.observe(agent)) for agent in turn})
            step = env.advance()                      # rewards, ends, what ended episodes came to
    """

    num_envs: int
    agents: tuple[str, ...]
    """In a fixed order."""
    turns: tuple[tuple[str, ...], ...]
    """The agents of each turn; together all agents, each once."""
    state_space: spaces.Box

    @property
    def observation_spaces(self) -> Mapping[str, spaces.Box]:
        """Of one session."""
        ...

    @property
    def action_spaces(self) -> Mapping[str, spaces.Space[Any]]:
        """Of one session."""
        ...

    def reset(self, seed: int) -> VecStep:
        """Start new episodes everywhere; rewards and end flags of the returned step are zero."""
        ...

    def observe(self, agent: str) -> Tensor:
        """Return an agent's current observation, ``[B, d_i]``; in a later turn of a sequential
        environment it includes what the earlier agents of this step did.
        """
        ...

    def act(self, actions: Mapping[str, Action]) -> None:
        """Take the actions of one turn's agents; turns come in order."""
        ...

    def advance(self) -> VecStep:
        """Close the step after all turns have acted."""
        ...

    def step(self, actions: Mapping[str, Action]) -> VecStep:
        """Act all turns in order, then advance."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to continue exactly: tensors, numbers and nested dicts."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        ...

    def close(self) -> None:
        """Release what the environment holds."""
        ...


def no_sums(sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return zeros in place of sums."""
    return {name: torch.zeros_like(values) for name, values in sums.items()}


def add_sums(sums: dict[str, Tensor], metrics: Mapping[str, Tensor]) -> None:
    """Add a step's metrics to the sums."""
    for name, value in metrics.items():
        so_far = sums.get(name)
        sums[name] = value.clone() if so_far is None else so_far + value


def episode_outcomes(
    rows: Rows, sums: Mapping[str, Tensor], requests: Tensor, totals: Collection[str]
) -> dict[str, Tensor]:
    """Return outcomes of the episodes that end in ``rows``, by name, float32 ``[n]`` each.

    Args:
        rows: the sessions that end.
        sums: of a step's metrics since a session began, float32 ``[B]`` each.
        requests: int64 ``[B]``, answered in each episode.
        totals: names of sums that stay totals; the others become means per request.
    """
    length = rows.of(requests).to(torch.float32)
    found = {"length": length, "return": rows.of(sums["team_reward"])}
    found |= {name: rows.of(sums[name]) for name in totals}
    for name, values in sums.items():
        if name not in totals:
            found[f"{name}_per_request"] = rows.of(values) / length
    return found
