"""Teams without learning: random actions, and the hand-set static pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from gymnasium import spaces
from torch import Tensor

from marec_env.errors import ConfigError
from marec_env.random import integers, session_keys, uniform
from marec_env.vector import Action, map_parts

if TYPE_CHECKING:
    from marec_env.simulator import Simulator

__all__ = ["RandomTeam", "StaticTeam", "hand_set_actions"]


class RandomTeam:
    """Every component draws uniformly from its action space.

    A session's draws depend on the seed, the session's key and the request, not on the batch it is
    played in (:class:`marec_env.evaluation.policies.DrawingPolicy`).
    """

    name = "random"

    def __init__(self, action_spaces: Mapping[str, spaces.Space[Any]], seed: int = 0) -> None:
        """``action_spaces``: of one session, per agent; ``seed``: of all draws."""
        self.spaces = dict(action_spaces)
        self.seed = seed
        self._keys: Tensor | None = None
        self.reset()

    def reset(self) -> None:
        """Begin the same episodes again."""
        self._steps = dict.fromkeys(self.spaces, 0)

    def begin(self, sessions: Tensor) -> None:
        """Begin the episodes of the sessions with these keys, int64 ``[B]``."""
        self.reset()
        self._keys = sessions.clone()

    def act(self, observations: Mapping[str, Tensor]) -> dict[str, Action]:
        """Return a uniform action for each agent of the turn.

        Where nobody told whose sessions these are, they are taken for sessions 0 ... B - 1.
        """
        actions = {}
        for agent, observation in observations.items():
            sessions = self._keys
            if sessions is None:
                sessions = torch.arange(observation.shape[0], device=observation.device)
            keys = session_keys(self.seed, sessions)
            actions[agent] = _draw(self.spaces[agent], keys, self._steps[agent], f"team/{agent}")
            self._steps[agent] += 1
        return actions


class StaticTeam:
    """The same actions in every request of every session."""

    def __init__(self, actions: Mapping[str, Action], name: str = "static") -> None:
        """``actions``: one of each agent, without a batch dimension; ``name``: in reports."""
        self.actions, self.name = dict(actions), name

    def reset(self) -> None:
        """Nothing to forget."""

    def act(self, observations: Mapping[str, Tensor]) -> dict[str, Action]:
        """Return the fixed action of each agent of the turn."""
        first = next(iter(observations.values()))

        def expand(part: Tensor) -> Tensor:
            return part.to(first.device).expand(len(first), *part.shape)

        return {agent: map_parts(expand, self.actions[agent]) for agent in observations}


def hand_set_actions(simulator: Simulator) -> dict[str, Action]:
    """Return each agent's default action, without a batch dimension."""
    defaults = simulator.default_actions().items()
    return {agent: map_parts(lambda part: part[0], action) for agent, action in defaults}


def _draw(space: spaces.Space[Any], keys: Tensor, step: int, stream: str) -> Action:
    """Return uniform draws from a space, one a session."""
    device = keys.device
    if isinstance(space, spaces.Box):
        low = torch.as_tensor(space.low, device=device).flatten()
        high = torch.as_tensor(space.high, device=device).flatten()
        draws = uniform(keys, step, stream, low.numel())
        return (low + (high - low) * draws).reshape(-1, *space.shape)
    if isinstance(space, spaces.Discrete):
        return integers(keys, step, stream, 1, int(space.n)).squeeze(1) + int(space.start)
    if isinstance(space, spaces.MultiDiscrete):
        sizes = torch.as_tensor(space.nvec, dtype=torch.int64, device=device).flatten()
        draws = uniform(keys, step, stream, sizes.numel())
        start = torch.as_tensor(space.start, dtype=torch.int64, device=device).flatten()
        return start + (draws * sizes).to(torch.int64).clamp(max=sizes - 1)
    if isinstance(space, spaces.Tuple):
        parts = [_draw(s, keys, step, f"{stream}/{k}") for k, s in enumerate(space.spaces)]
        return tuple(part for part in parts if isinstance(part, Tensor))
    raise ConfigError(
        f"cannot draw from action space {space}; known: Box, Discrete, MultiDiscrete, Tuple"
    )
