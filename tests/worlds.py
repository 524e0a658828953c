"""The small generated world of many tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from marec_env.pipeline.request import Request
from marec_env.simulator import Simulator
from marec_env.world import World


def small_environment(num_users: int = 120, num_items: int = 300, **changes: Any) -> dict[str, Any]:
    """Return a section ``environment``: slates of 5 of 20 candidates, hashed texts, 6 requests.

    Args:
        num_users: of the generated log.
        num_items: likewise.
        changes: sections that stand instead of, or beside, these.
    """
    return {
        "max_requests": 6,
        "data": {
            "source": "synthetic/streaming",
            "synthetic": {"num_users": num_users, "num_items": num_items},
        },
        "embeddings": {"encoder": "hashing", "reduction": {"dimension": 8}},
        "catalog": {"num_topics": 6},
        "population": {"history": 12},
        "pipeline": {"candidates": 20, "slate_size": 5},
        "measure": {"true_top": 20},
        **changes,
    }


def first_channel_alone(world: World) -> tuple[Tensor, Request]:
    """Play a request of 16 sessions in which the first of two channels brings all that it can;
    return the latest likes before it, int64 ``[16, M]``, and the request.
    """
    simulator = Simulator(world, 16)
    simulator.reset(seed=0)
    recent = simulator.pipeline.memory.recent.clone()
    actions = simulator.default_actions()
    actions["recall_0"] = torch.tensor([3, 0]).expand(16, -1)
    simulator.step(actions)
    return recent, simulator.last.request
