"""Components' decisions as a game: points of a box in, payoffs per session out.

Every component ``i`` decides a vector ``x_i``; whatever its real action space, it is presented as
a point of the unit cube ``[0, 1]^d_i``, so that every search method works on every component. A
team's decision is the concatenation of its components' vectors. Sessions are named by number: the
same numbers are the same users with the same luck, whoever plays (common random numbers).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agents.studies.equilibrium.normal_form import Floats

__all__ = ["Criterion", "DecisionGame", "Outcome", "block", "mixed_objective", "own", "team"]

Sessions = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What ``P`` decisions led to over ``S`` sessions."""

    objectives: Floats
    """``[P, S, n]``: each deciding component's own objective f_i, summed over the session."""
    team: Floats
    """``[P, S]``: the team objective F, summed over the session."""
    outcomes: Mapping[str, Floats] = field(default_factory=dict)
    """``[P, S]`` each: what the user got (``clicks``, ``length``, ...)."""


class DecisionGame(Protocol):
    """A game in which ``n`` components each choose a point of a unit cube."""

    components: tuple[str, ...]
    dims: tuple[int, ...]
    """Each component's number of coordinates."""

    def play(self, decisions: Floats, sessions: Sessions) -> Outcome:
        """Play ``P`` decisions ``[P, sum(dims)]`` on the same sessions ``[S]``."""
        ...

    def default(self) -> Floats:
        """Return the decision that does nothing clever, ``[sum(dims)]``."""
        ...


Criterion = Callable[[Outcome], Floats]
"""What is to be maximised: from an outcome to values ``[P, S]``."""


def block(game: DecisionGame, component: int) -> slice:
    """Return where a component's coordinates lie in a team's decision."""
    start = sum(game.dims[:component])
    return slice(start, start + game.dims[component])


def team(outcome: Outcome) -> Floats:
    """Criterion: the team objective F."""
    return outcome.team


def own(component: int) -> Criterion:
    """Return the criterion f_i of one component."""
    return lambda outcome: outcome.objectives[..., component]


def mixed_objective(component: int, own_share: float) -> Criterion:
    """Return the criterion λ f_i + (1 − λ) F, with λ = ``own_share``: 1 is selfish, 0 is shared."""
    return lambda outcome: (
        own_share * outcome.objectives[..., component] + (1.0 - own_share) * outcome.team
    )
