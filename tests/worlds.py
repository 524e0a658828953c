"""The small generated world of many tests."""

from __future__ import annotations

from typing import Any


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
