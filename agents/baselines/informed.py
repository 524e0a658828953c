"""Informed play: what a recommender could do that knows the users' model, but not their hidden
state (:mod:`marec_env.users.beliefs`). A bound for learners, no competitor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from marec_env.users.beliefs import Filter, guessed_tastes
from marec_env.users.oracles import Outlook

if TYPE_CHECKING:
    from marec_env.simulator import Simulator

GUESSES = 16
"""Tastes that stand for what a history tells of a user never met."""


class Informed:
    """Show the slate of the highest expected clicks under the beliefs, boredom to come included.

    With ``met`` false, nobody's own taste is known: it is guessed from the history by what holds
    for other users.
    """

    privileged = True

    def __init__(
        self, name: str, plan: Literal["planned", "myopic"] = "planned", met: bool = True
    ) -> None:
        """Args:
        name: in reports.
        plan: whether boredom to come counts.
        met: whether the tastes of users with a history are known.
        """
        self.name, self._plan, self._met = name, plan, met
        self._filter: Filter | None = None
        self._guesses: Tensor | None = None
        self._told = -1

    def outlook(self, simulator: Simulator) -> Outlook:
        """Return what is expected now, of sessions that began together and are met at every request
        since.
        """
        return self.filter(simulator).outlook(simulator.config.pipeline.slate_size)

    def filter(self, simulator: Simulator) -> Filter:
        """Return the beliefs as they stand before the next request."""
        memory, users = simulator.pipeline.memory, simulator.users
        requests = int(memory.requests[0])
        if requests == 0:
            population = users.population
            if not self._met and self._guesses is None:
                self._guesses = guessed_tastes(population, GUESSES, 0)
            known = (memory.history >= 0).any(1)
            self._filter = Filter(users.config, population, users.user_index, known, self._guesses)
        elif requests == self._told + 1 and self._filter is not None:
            rows = torch.arange(len(memory.requests))
            last = memory.requests - 1
            slate, clicks = memory.session_items[rows, last], memory.session_clicks[rows, last]
            self._filter.observe(slate, clicks)
        assert self._filter is not None
        self._told = requests
        return self._filter

    def recommend(self, simulator: Simulator) -> Tensor:
        """Return int64 ``[B, K]``, most likely to be clicked first."""
        outlook, seen = self.outlook(simulator), simulator.pipeline.memory.seen
        return outlook.planned(seen) if self._plan == "planned" else outlook.myopic(seen)
