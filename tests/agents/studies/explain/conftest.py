import pytest
import torch

from agents.learners.config import MAPPOConfig
from agents.learners.policy import TrainedPolicy
from agents.learners.team import TeamSpec
from agents.studies.explain.team import input_groups
from marec_env.environment_config import EnvironmentConfig
from marec_env.simulator import Simulator
from marec_env.world import build_world
from tests.worlds import small_environment


@pytest.fixture(scope="session")
def world():
    """A small generated world: 120 users, 300 items, slates of 5 of 20 candidates, 6 requests."""
    config = EnvironmentConfig.model_validate(small_environment())
    return build_world(config)


def _policy(world, recurrent=0):
    simulator = Simulator(world, 1)
    spec = TeamSpec.of(simulator)
    config = MAPPOConfig.model_validate(
        {"actor": {"hidden": [16], "recurrent_units": recurrent, "normalise_inputs": False}}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        actors = {agent: spec.build_actor(config, agent).eval() for agent in spec.agents}
    return TrainedPolicy(spec, actors)


@pytest.fixture
def policy(world):
    """An untrained team, its decisions large enough to matter."""
    policy = _policy(world)
    for actor in policy.actors.values():
        actor.head.weight.data.mul_(100.0)
    return policy


@pytest.fixture
def recurrent_policy(world):
    policy = _policy(world, recurrent=8)
    for actor in policy.actors.values():
        actor.head.weight.data.mul_(100.0)
    return policy


@pytest.fixture
def exposure_only(world, policy):
    """A hand-made team: only ranking reacts to anything, and only to the field ``exposure``."""
    simulator = Simulator(world, 1)
    for agent, actor in policy.actors.items():
        if agent != "ranking_0":
            actor.head.weight.data.zero_()
    first = policy.actors["ranking_0"].trunk.layers[0]
    for name, columns in input_groups(simulator, "ranking_0", 0).items():
        if name != "exposure":
            first.weight.data[:, columns] = 0.0
    first.weight.data.mul_(10.0)
    return policy
