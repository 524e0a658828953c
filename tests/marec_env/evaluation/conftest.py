import pytest

from marec_env.environment_config import EnvironmentConfig
from marec_env.world import build_world


@pytest.fixture(scope="session")
def world():
    """A small generated world: 120 users, 300 items, slates of 5 of 20 candidates, 8 requests."""
    config = EnvironmentConfig.model_validate(
        {
            "max_requests": 8,
            "data": {
                "source": "synthetic/streaming",
                "synthetic": {"num_users": 120, "num_items": 300},
            },
            "embeddings": {"encoder": "hashing", "reduction": {"dimension": 8}},
            "catalog": {"num_topics": 6},
            "population": {"history": 12},
            "pipeline": {"candidates": 20, "slate_size": 5},
            "measure": {"true_top": 20},
        }
    )
    return build_world(config)
