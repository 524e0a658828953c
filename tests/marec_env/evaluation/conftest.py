import pytest

from marec_env.environment_config import EnvironmentConfig
from marec_env.world import build_world
from tests.worlds import small_environment


@pytest.fixture(scope="session")
def world():
    """A small generated world: 120 users, 300 items, slates of 5 of 20 candidates, 8 requests."""
    config = EnvironmentConfig.model_validate(small_environment(max_requests=8))
    return build_world(config)
