"""Privileged recommenders: bounds that show how much there is to gain, never competitors.

The myopic oracle knows each user's click probabilities of the moment. The planning one also counts
what a slate's repetition of topics costs afterwards (:mod:`marec_env.users.oracles`); where users
get bored, the step from the first to the second is what planning is worth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from marec_env.evaluation.policies import recommender_view
from marec_env.users.oracles import farsighted_slate, myopic_slate

if TYPE_CHECKING:
    from marec_env.simulator import Simulator

__all__ = ["MyopicOracle", "PlanningOracle"]


class MyopicOracle:
    """Show the ``K`` unseen items most likely to be clicked now."""

    name = "oracle_myopic"
    privileged = True
    choose = staticmethod(myopic_slate)

    def recommend(self, simulator: Simulator) -> Tensor:
        """Return int64 ``[B, K]``, most likely first (the order that examination rewards)."""
        view, users = recommender_view(simulator), simulator.users
        items = torch.arange(users.num_items, device=view.seen.device).expand(len(view.seen), -1)
        return self.choose(users, simulator.session_keys, items, view.slate_size, view.seen)


class PlanningOracle(MyopicOracle):
    """Show the first slate of the best plan, boredom to come included."""

    name = "oracle"
    choose = staticmethod(farsighted_slate)
