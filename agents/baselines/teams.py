"""Teams without learning: random actions, and the hand-set static pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from gymnasium import spaces
from torch import Tensor

from agents.pettingzoo_spaces import levels, mask_width
from marec_env.errors import ConfigError
from marec_env.random import integers, session_keys, uniform
from marec_env.vector import Action, map_parts

if TYPE_CHECKING:
    from marec_env.simulator import Simulator


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

    def act(
        self, observations: Mapping[str, Tensor], action_masks: Mapping[str, Any] | None = None
    ) -> dict[str, Action]:
        """Return a uniform action for each agent of the turn, of those that masks allow
        (:attr:`marec_env.vector.VecStep.action_masks`).

        Where nobody told whose sessions these are, they are taken for sessions 0 ... B - 1.
        """
        actions = {}
        for agent, observation in observations.items():
            sessions = self._keys
            if sessions is None:
                sessions = torch.arange(observation.shape[0], device=observation.device)
            keys = session_keys(self.seed, sessions)
            mask = (action_masks or {}).get(agent)
            flat = torch.cat(mask, dim=-1) if isinstance(mask, tuple) else mask
            place = (keys, self._steps[agent], f"team/{agent}")
            actions[agent] = draw_action(self.spaces[agent], *place, flat)
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


def hand_set(env: Simulator) -> StaticTeam:
    """Return the hand-set team, as ``algorithm.cloning.policy`` names it."""
    return StaticTeam(hand_set_actions(env))


def draw_action(
    space: spaces.Space[Any], keys: Tensor, step: int, stream: str, mask: Tensor | None = None
) -> Action:
    """Return uniform draws from a space, one a session; an infinite bound counts as one of 1.

    ``mask``, bool ``[B, width]``, has the levels of all discrete parts one after another.
    """
    device = keys.device
    if isinstance(space, spaces.Tuple):
        widths = [mask_width(part) for part in space.spaces]
        masks = [None] * len(widths) if mask is None else torch.split(mask, widths, dim=1)
        parts = [
            draw_action(part, keys, step, f"{stream}/{k}", m if width else None)
            for k, (part, m, width) in enumerate(zip(space.spaces, masks, widths, strict=True))
        ]
        return tuple(part for part in parts if isinstance(part, Tensor))
    if isinstance(space, spaces.Box):
        low, high = (torch.as_tensor(x, device=device).flatten() for x in (space.low, space.high))
        low, high = low.nan_to_num(neginf=-1.0), high.nan_to_num(posinf=1.0)
        draws = uniform(keys, step, stream, low.numel())
        return (low + (high - low) * draws).reshape(-1, *space.shape)
    if mask is not None:
        allowed = torch.split(mask, levels(space), dim=1)
        draws = uniform(keys, step, stream, len(allowed))
        found = torch.stack([_one_of(*pair) for pair in zip(allowed, draws.T, strict=True)], dim=1)
        start = torch.as_tensor(getattr(space, "start", 0), device=device).flatten()
        return (start + found).reshape(-1, *(space.shape or ()))
    if isinstance(space, spaces.Discrete):
        return integers(keys, step, stream, 1, int(space.n)).squeeze(1) + int(space.start)
    if isinstance(space, spaces.MultiDiscrete):
        sizes = torch.as_tensor(space.nvec, dtype=torch.int64, device=device).flatten()
        draws = uniform(keys, step, stream, sizes.numel())
        start = torch.as_tensor(space.start, dtype=torch.int64, device=device).flatten()
        found = start + (draws * sizes).to(torch.int64).clamp(max=sizes - 1)
        return found.reshape(-1, *space.shape)
    if isinstance(space, spaces.MultiBinary):
        draws = uniform(keys, step, stream, len(levels(space)))
        return (draws < 0.5).to(torch.int64).reshape(-1, *space.shape)
    raise ConfigError(
        f"cannot draw from action space {space}; known: Box, Discrete, MultiDiscrete, MultiBinary, "
        "Tuple"
    )


def _one_of(allowed: Tensor, draws: Tensor) -> Tensor:
    """Return one of the allowed levels a row, int64 ``[B]``, by draws in [0, 1).

    Args:
        allowed: bool ``[B, n]``, at least one in each row.
        draws: ``[B]``.
    """
    count = allowed.sum(dim=1)
    wanted = torch.minimum((draws * count).to(torch.int64), count - 1)
    return (allowed.cumsum(dim=1) > wanted.unsqueeze(1)).to(torch.int64).argmax(dim=1)
