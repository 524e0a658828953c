"""Every registered baseline, fitted for and run on a real simulator."""

import pytest
import torch

from agents.baselines import BASELINES, build_baseline
from agents.baselines.scoring import MyopicOracle, PlanningOracle, RandomSlates
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError
from marec_env.evaluation.policies import SlatePolicy, TeamPolicy
from marec_env.evaluation.rollout import rollout
from marec_env.simulator import Simulator
from marec_env.world import build_world
from tests.worlds import small_environment

PRIVILEGED = {"informed", "informed_myopic", "informed_unmet", "oracle", "oracle_myopic"}
TEAMS = {"random", "static"}


def _world(**users):
    config = EnvironmentConfig.model_validate(small_environment(60, 200, users=users))
    return build_world(config)


@pytest.fixture(scope="module")
def simulator():
    return Simulator(_world(), 4, autoreset=False)


@pytest.mark.filterwarnings("error::implicit.utils.ParameterWarning")
@pytest.mark.parametrize("name", BASELINES.names())
def test_every_baseline_runs(simulator, name):
    policy = build_baseline(name, simulator)
    assert isinstance(policy, TeamPolicy if name in TEAMS else SlatePolicy)
    if isinstance(policy, SlatePolicy):
        assert policy.privileged == (name in PRIVILEGED)
    outcomes = rollout(simulator.world, policy, sessions=4, seed=0)
    assert outcomes.per_session["clicks"].isfinite().all()
    assert (outcomes.per_session["length"] >= 1).all()


def test_random_play_does_not_depend_on_the_batch(simulator):
    policy = build_baseline("random", simulator)
    runs = [rollout(simulator.world, policy, 10, seed=3, batch=batch) for batch in (10, 4, 1)]
    for other in runs[1:]:
        for name in ("clicks", "length"):
            assert torch.equal(runs[0].per_session[name], other.per_session[name])
        assert torch.allclose(runs[0].per_session["return"], other.per_session["return"])


def test_unknown_baselines_are_named(simulator):
    with pytest.raises(ConfigError, match="did you mean 'item_knn'"):
        build_baseline("item_knm", simulator)


def test_oracles_are_bounds_above_random():
    world = _world(boredom={"kind": "threshold", "susceptible_share": 1.0})
    found = {
        policy.name: rollout(world, policy, sessions=64, seed=1).per_session["clicks"].mean()
        for policy in (RandomSlates(), MyopicOracle(), PlanningOracle())
    }
    assert found["random_slates"] < found["oracle_myopic"] < found["oracle"]


def test_without_boredom_the_aware_oracle_is_the_myopic_one():
    world = _world(boredom={"kind": "none"})
    simulator = Simulator(world, 8, autoreset=False)
    simulator.begin(torch.arange(8), 2)
    slate = PlanningOracle().recommend(simulator)
    assert torch.equal(slate, MyopicOracle().recommend(simulator))
