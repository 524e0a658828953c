"""The batched environment interface: arrays in, arrays out, for any cooperative environment.

Learners and evaluation code in ``agents`` know only this protocol. The recommender pipeline
(:func:`make_vec`), the matrix games of the tests and any PettingZoo parallel environment
(:mod:`agents.pettingzoo_adapter`) implement it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from gymnasium import spaces
from torch import Tensor

from marec_env.errors import ConfigError

__all__ = ["Action", "VecStep", "VectorEnv", "check_action"]

Action = Tensor | tuple[Tensor, ...]
"""A batch of actions of one agent. Box: float32 ``[B, n]``; Discrete: int64 ``[B]``; MultiDiscrete:
int64 ``[B, n]``; Tuple: a tuple of such batches."""


def check_action(agent: str, action: Action, space: spaces.Space[Any], sessions: int) -> None:
    """Refuse a batch of actions that its space does not hold.

    Numbers of a Box may lie outside its bounds, where the agent clips them.

    Args:
        agent: whose, for messages.
        action: the batch.
        space: of one session.
        sessions: B.

    Raises:
        ConfigError: wrong form, shape or kind of numbers; a number is not finite, or no choice.
    """
    if isinstance(space, spaces.Tuple):
        if not isinstance(action, tuple) or len(action) != len(space.spaces):
            raise ConfigError(f"{agent}: action is no tuple of {len(space.spaces)} batches")
        for part, of in zip(action, space.spaces, strict=True):
            check_action(agent, part, of, sessions)
        return
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete):
        return
    shape = (sessions, *(space.shape or ()))
    if not isinstance(action, Tensor):
        raise ConfigError(f"{agent}: action is a {type(action).__name__}; give a tensor")
    if tuple(action.shape) != shape:
        raise ConfigError(f"{agent}: action has shape {list(action.shape)}; needed: {list(shape)}")
    if isinstance(space, spaces.Box):
        if not bool(action.isfinite().all()):
            raise ConfigError(f"{agent}: action holds numbers that are not finite")
        return
    if action.is_floating_point():
        raise ConfigError(f"{agent}: action is {action.dtype}; choices are torch.int64")
    count = int(space.n) if isinstance(space, spaces.Discrete) else int(space.nvec.max())
    if bool(((action < 0) | (action >= count)).any()):
        raise ConfigError(f"{agent}: action holds choices outside 0 ... {count - 1}")


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
    """The central critic's input, float32 ``[B, s]``, for the next decision."""
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
    """Values of this step, float32 ``[B]`` each (``team_reward``, ``objective/recall_0``, ...)."""
    episodes: dict[str, Tensor] = field(default_factory=dict)
    """Outcomes of the episodes that ended in this step, float32 ``[n]`` each, in session order
    (``return``, ``length``, ``clicks``, ...)."""


@runtime_checkable
class VectorEnv(Protocol):
    """``B`` sessions stepped at once.

    One step consists of one or more *turns*. In a parallel environment there is one turn, in which
    all agents act on the observations that the last step returned. In a sequential one each agent
    has a turn and sees what the agents before it did: ask :meth:`observe` for the turn's
    observations, hand its actions to :meth:`act`, and close the step with :meth:`advance`.
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
