"""Components' decisions as a game, points of a unit cube in, payoffs per session out; and the
search of such points.

Every component ``i`` decides a vector ``x_i``; whatever its real action space, it is presented as
a point of ``[0, 1]^d_i``, so that one search serves every component. A team's decision is the
concatenation of its components' vectors.

The pipeline's game has static decisions: deciding components hold one action for the whole session.
A static decision is a weaker opponent than a learned policy, and a much cheaper one: best responses
among static decisions bound the gain of a learned one from below.

The search is the cross-entropy method (Rubinstein and Kroese, 2004) under a counted budget of
evaluations. It never sees noise: it is given the mean over a fixed set of sessions. Whoever calls
it must judge the winner on other sessions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from agents.baselines.teams import StaticTeam
from agents.studies.equilibrium.lineups import Payoffs, Replay, Sessions, play_lineups
from agents.studies.equilibrium.normal_form import Floats
from marec_env.errors import ConfigError
from marec_env.vector import Action

ROWS = 1024
"""Sessions simulated at once; larger batches lose where the funnel is wide."""
REMEMBERED = 4096
"""Decisions whose payoffs are kept: a search asks again for discrete decisions, often."""

POPULATION = 16  # candidates an iteration
ELITES = 4  # a quarter survives
START = 0.3  # standard deviation of the first population; a uniform draw's is 0.29
FLOOR = 0.02  # keeps the search alive
MEMORY = 0.3  # share of the old mean and deviation that is kept


def block(game: PipelineGame, component: int) -> slice:
    """Return where a component's coordinates lie in a team's decision."""
    start = sum(game.dims[:component])
    return slice(start, start + game.dims[component])


def coordinates(space: spaces.Space[Any]) -> int:
    """Return how many coordinates an action has: one a number of a Box, one a discrete choice.

    Raises:
        ConfigError: the space is none of Box (bounded), Discrete, MultiDiscrete, Tuple of these.
    """
    if isinstance(space, spaces.Tuple):
        return sum(coordinates(part) for part in space.spaces)
    bounded = isinstance(space, spaces.Box) and space.is_bounded("both")
    if bounded or isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return int(np.prod(space.shape or ()))
    raise ConfigError(
        f"cannot search action space {space}; known: bounded Box, Discrete, MultiDiscrete, Tuple"
    )


def decode(space: spaces.Space[Any], point: Floats) -> Action:
    """Return the action at a point ``[coordinates(space)]``, without a batch dimension.

    A discrete choice among ``n`` takes an ``n``-th of its coordinate's range each.
    """
    if isinstance(space, spaces.Box):
        unit = torch.as_tensor(point, dtype=torch.float32).reshape(space.shape)
        low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
        return (low + (high - low) * unit).to(torch.float32)
    if isinstance(space, spaces.Tuple):
        ends = np.cumsum([coordinates(part) for part in space.spaces])
        parts = zip(space.spaces, np.split(point, ends[:-1]), strict=True)
        return tuple(one for part in parts if isinstance(one := decode(*part), Tensor))
    sizes, first = _choices(space)
    level = np.minimum(np.floor(np.clip(point, 0.0, 1.0) * sizes), sizes - 1) + first
    return torch.as_tensor(level.astype(np.int64).reshape(space.shape))


def encode(space: spaces.Space[Any], action: Action) -> Floats:
    """Return a point that decodes to an action (the middle of a discrete choice's range)."""
    if isinstance(space, spaces.Tuple):
        parts = [encode(inner, part) for inner, part in zip(space.spaces, action, strict=True)]
        return np.concatenate(parts)
    values = np.asarray(torch.as_tensor(action), dtype=np.float64).reshape(-1)
    if isinstance(space, spaces.Box):
        low, high = space.low.reshape(-1), space.high.reshape(-1)
        width = np.where(high > low, high - low, 1.0)
        return np.asarray(np.clip((values - low) / width, 0.0, 1.0), dtype=np.float64)
    sizes, first = _choices(space)
    return np.asarray((values - first + 0.5) / sizes)


def _choices(space: spaces.Space[Any]) -> tuple[Floats, Floats]:
    """Return how many choices a discrete space has at each coordinate, and the lowest of them."""
    assert isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
    sizes = space.n if isinstance(space, spaces.Discrete) else space.nvec
    return np.reshape(sizes, -1).astype(np.float64), np.reshape(space.start, -1).astype(np.float64)


@dataclass
class PipelineGame:
    """The pipeline as a game in which each component chooses a point of a unit cube."""

    replay: Replay
    per: Literal["session", "request"] = "session"
    """Whether objectives are summed over the session, or averaged over its requests and counted for
    a session of full length: a sum already pays every component for keeping the user. F is a sum
    either way, since staying is part of it."""

    def __post_init__(self) -> None:
        self.components = tuple(self.replay.agents)
        """Who decides."""
        self.dims = tuple(coordinates(self.replay.action_spaces[c]) for c in self.components)
        self._played: OrderedDict[bytes, Payoffs] = OrderedDict()

    def default(self) -> Floats:
        """Return the components' default actions, ``[sum(dims)]``."""
        return self._point(self.replay.defaults)

    def actions(self, decision: Floats) -> dict[str, Action]:
        """Return the actions of a decision ``[sum(dims)]``, without a batch dimension."""
        parts = np.split(decision, np.cumsum(self.dims)[:-1])
        return {
            component: decode(self.replay.action_spaces[component], part)
            for component, part in zip(self.components, parts, strict=True)
        }

    def _point(self, actions: Mapping[str, Action]) -> Floats:
        of = self.replay.action_spaces
        return np.concatenate([encode(of[c], actions[c]) for c in self.components])

    def play(self, decisions: Floats, sessions: Sessions) -> Payoffs:
        """Play ``P`` decisions ``[P, sum(dims)]`` on the same sessions ``[S]``.

        Points that decode to the same actions are the same decision, and are simulated once.
        """
        keys = [
            self._point(self.actions(decision)).tobytes() + np.asarray(sessions).tobytes()
            for decision in decisions
        ]
        new = {k: d for k, d in zip(keys, decisions, strict=True) if k not in self._played}
        if new:
            found = self._simulated(list(new.values()), sessions)
            self._played.update(zip(new, found, strict=True))
        for key in keys:
            self._played.move_to_end(key)
        played = Payoffs.joined([self._played[key] for key in keys])
        while len(self._played) > REMEMBERED:
            self._played.popitem(last=False)
        if self.per == "session":
            return played
        rate = played.objectives / played.outcomes["length"][..., None]
        return replace(played, objectives=self.replay.max_requests * rate)

    def _simulated(self, decisions: Sequence[Floats], sessions: Sessions) -> list[Payoffs]:
        """Return the payoffs of each decision, with a first dimension of 1."""
        teams = [StaticTeam(self.actions(decision)) for decision in decisions]
        lineups = [dict.fromkeys(self.components, team) for team in teams]
        at_once = max(1, ROWS // len(sessions))
        played = play_lineups(self.replay, lineups, sessions, at_once=at_once)
        return [played.rows(slice(row, row + 1)) for row in range(len(lineups))]


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found."""

    best: Floats
    """``[D]``."""
    value: float
    half: Floats
    """``[D]``: the best point when half of the budget was spent."""


def search(score: Callable[[Floats], Floats], budget: int, start: Floats, seed: int) -> Found:
    """Spend ``budget`` evaluations of ``score`` in the unit cube and return the best point.

    A diagonal Gaussian; half of the first population is uniform, since a start near a face would
    otherwise hide the far side. ``start [D]`` is evaluated first. The score is from points
    ``[P, D]`` to values ``[P]``, to be maximised.

    Raises:
        ConfigError: the budget is less than 2.
    """
    if budget < 2:
        raise ConfigError(f"a search needs a budget of at least 2 evaluations, not {budget}")
    generator = np.random.default_rng(seed)
    mean = np.asarray(start, dtype=np.float64)
    deviation = np.full(mean.size, START)
    tried, scored = [np.clip(mean[None], 0.0, 1.0)], [np.asarray(score(np.clip(mean[None], 0, 1)))]
    spent = 1
    while spent < budget:
        points = np.clip(mean + deviation * generator.normal(size=(POPULATION, mean.size)), 0, 1)
        if spent == 1:
            points[::2] = generator.random(points[::2].shape)
        points = points[: budget - spent]
        values = np.asarray(score(points), dtype=np.float64)
        spent += len(points)
        tried.append(points)
        scored.append(values)
        elite = points[np.argsort(-values)[:ELITES]]
        mean = MEMORY * mean + (1 - MEMORY) * elite.mean(axis=0)
        deviation = MEMORY * deviation + (1 - MEMORY) * elite.std(axis=0)
        deviation = np.maximum(deviation, FLOOR)
    points, values = np.concatenate(tried), np.concatenate(scored)
    best, half = int(values.argmax()), int(values[: (budget + 1) // 2].argmax())
    return Found(points[best], float(values[best]), points[half])
