"""Privileged recommenders: bounds that show how much there is to gain, never competitors.

The myopic oracle knows each user's click probabilities of the moment. The boredom-aware one also
counts what a slate's repetition of topics costs afterwards; where users get bored, the step from
the first to the second is what planning is worth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from agents.baselines.scoring import best_unseen
from marec_env.evaluation.view import recommender_view

if TYPE_CHECKING:
    from marec_env.simulator import Simulator

__all__ = ["BoredomAwareOracle", "MyopicOracle", "greedy_slate"]


class MyopicOracle:
    """Show the ``K`` unseen items most likely to be clicked now."""

    name = "oracle_myopic"
    privileged = True

    def recommend(self, simulator: Simulator) -> Tensor:
        """Return int64 ``[B, K]``, most likely first (the order that examination rewards)."""
        view = recommender_view(simulator)
        return best_unseen(simulator.users.click_probability(), view.seen, view.slate_size)


class BoredomAwareOracle:
    """Build the slate item by item, charging each that would bore the user.

    An item whose topic still has room (``users.topic_room``: so many items of it in the next slate
    leave the user as fresh as before) is worth its click probability; one beyond the room is worth
    ``cost`` less, since it spoils its topic for the requests to come. With users who never get
    bored, or who do not say, this is the myopic oracle.
    """

    name = "oracle"
    privileged = True

    def __init__(self, cost: float = 0.5) -> None:
        """Args:
        cost: clicks that one item beyond its topic's room costs later; set by hand, not searched.
        """
        self.cost = cost

    def recommend(self, simulator: Simulator) -> Tensor:
        """Return int64 ``[B, K]``, in order of choice."""
        view, users = recommender_view(simulator), simulator.users
        value = users.click_probability().masked_fill(view.seen, -torch.inf)
        size = view.slate_size
        topic_room = getattr(users, "topic_room", None)
        if topic_room is None:
            return best_unseen(value, view.seen, size)
        beyond = torch.arange(size, device=value.device) >= topic_room(size).unsqueeze(2)
        topics = simulator.world.population.topics
        return greedy_slate(value, topics, self.cost * beyond, size)


def greedy_slate(value: Tensor, topics: Tensor, charges: Tensor, size: int) -> Tensor:
    """Choose ``size`` items one by one by value less a charge that grows with the topic's use.

    Args:
        value: float32 ``[B, N]``; ``-inf`` where an item must not be shown.
        topics: int64 ``[N]``.
        charges: float32 ``[B, T, K]``: of the first, second, ... item of a topic.
        size: K.

    Returns:
        Int64 ``[B, K]``.
    """
    value = value.clone()
    used = torch.zeros(charges.shape[:2], dtype=torch.int64, device=value.device)
    rows = torch.arange(value.shape[0], device=value.device)
    slate = torch.empty(value.shape[0], size, dtype=torch.int64, device=value.device)
    for position in range(size):
        charge = charges.gather(2, used.unsqueeze(2)).squeeze(2)  # of the next item of each topic
        chosen = (value - charge[:, topics]).argmax(dim=1)
        slate[:, position] = chosen
        value[rows, chosen] = -torch.inf
        used[rows, topics[chosen]] = (used[rows, topics[chosen]] + 1).clamp(max=size - 1)
    return slate
