"""The profile component alone over shards of users, beside others that were trained beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.config import RunConfig
from agents.learners.policy import TrainedPolicy, load_policy
from agents.learners.trainer import Trainer
from agents.studies.privacy import federated_teams
from agents.studies.privacy.curve import Plan, clicks_of
from agents.studies.privacy.federated_teams import train_federated
from agents.studies.privacy.report import of_log_users
from marec_env.environment_config import EnvironmentConfig
from marec_env.privacy.federated import FederatedConfig, FederatedReport
from marec_env.simulator import Simulator
from marec_env.world import World, build_world
from tests.worlds import small_environment

USERS = 40


def run_config(**algorithm: Any) -> RunConfig:
    section = small_environment(USERS, 80)
    section["pipeline"] |= {"components": ("profile", "ranking")}
    return RunConfig.model_validate(
        {
            "environment": {"kind": "marec", **section},
            "sampling": {"num_sessions": 8, "rollout_length": 4},
            "algorithm": {"kind": "mappo", "epochs": 2, **algorithm},
        }
    )


PROFILE = run_config(components={"ranking_0": {"frozen": True}})


@pytest.fixture(scope="module")
def world() -> World:
    environment = PROFILE.environment
    assert isinstance(environment, EnvironmentConfig)
    return build_world(environment)


@pytest.fixture(scope="module")
def beforehand(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A team after an iteration on all users."""
    folder = tmp_path_factory.mktemp("beforehand")
    with closing(trainer(world, run_config(), 1)) as team:
        team.iterate()
        team.save(folder)
        yield folder


def trainer(world: World, run: RunConfig, seed: int) -> Trainer:
    return Trainer(run.algorithm, run.sampling, seed, partial(Simulator, world))


def weights(policy: TrainedPolicy, name: str) -> Tensor:
    state = policy.actors[name].state_dict()
    return torch.cat([value.flatten().double() for value in state.values()])


def shared(
    world: World, start: Path | None, run: RunConfig = PROFILE, **settings: Any
) -> tuple[TrainedPolicy, FederatedReport]:
    config = FederatedConfig.model_validate({"shards": 4, "rounds": 2, **settings})
    shard = torch.arange(USERS) * config.shards // USERS
    return train_federated(run, world, shard, config, 3, start)


def test_one_shard_is_training_the_profile_on_all_to_the_bit(
    world: World, beforehand: Path
) -> None:
    policy, _ = shared(world, beforehand, shards=1)
    with closing(trainer(world, PROFILE, 3)) as central:
        central.begin_with(beforehand)
        given = weights(central.policy(), "profile_0").clone()
        for _ in range(2):
            central.iterate()
        for name in ("profile_0", "ranking_0"):
            assert torch.equal(weights(policy, name), weights(central.policy(), name))
        assert not torch.equal(weights(policy, "profile_0"), given)


@pytest.mark.parametrize("prepared", [True, False])
def test_others_stay_as_they_were_and_are_not_sent(
    world: World, beforehand: Path, prepared: bool
) -> None:
    start = beforehand if prepared else None
    before, _ = shared(world, start, rounds=1, dropout=1.0)
    kept = {name: weights(before, name).clone() for name in ("profile_0", "ranking_0")}
    after, report = shared(world, start, dropout=0.3)
    assert torch.equal(weights(after, "ranking_0"), kept["ranking_0"])
    assert not torch.equal(weights(after, "profile_0"), kept["profile_0"])
    assert report.answers + report.lost == 8
    _, whole = shared(world, start, run_config(), dropout=0.3)
    size = sum(value.numel() for value in after.actors["ranking_0"].state_dict().values())
    less = (whole.bytes_down - report.bytes_down) / (4 * 8)
    assert 0 < less <= size


def test_the_study_begins_with_the_networks_given(
    beforehand: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(federated_teams, "SETTINGS", {})
    plan = Plan(seeds=1, sessions=8, cohort=5, train_steps=32, start=str(beforehand))
    report = federated_teams.federated_teams_cells(PROFILE, plan).measured(
        lambda report: None, lambda name: None
    )
    own = of_log_users(EnvironmentConfig.model_validate(PROFILE.environment))
    given = clicks_of(build_world(own), load_policy(beforehand), 8, 5)
    assert report["cells"]["untrained; seed 0"]["clicks"] == given
    assert report["plan"]["start"] == str(beforehand)
