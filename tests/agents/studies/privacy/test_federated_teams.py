"""Teams over shards of users: equal to training on all where they should be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.config import RunConfig
from agents.learners.policy import TrainedPolicy
from agents.studies.privacy import federated_teams
from agents.studies.privacy.curve import Plan
from agents.studies.privacy.federated_teams import (
    federated_teams_cells,
    federated_teams_table,
    train_federated,
)
from agents.studies.privacy.teams import trained_in
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError
from marec_env.privacy.federated import FederatedConfig, FederatedReport
from marec_env.world import World, build_world
from tests.worlds import small_environment

USERS = 40


def run_config(**algorithm: Any) -> RunConfig:
    section = small_environment(USERS, 80)
    section["pipeline"] |= {"components": ("profile",)}
    return RunConfig.model_validate(
        {
            "environment": {"kind": "marec", **section},
            "sampling": {"num_sessions": 8, "rollout_length": 4},
            "algorithm": {"kind": "mappo", "epochs": 2, **algorithm},
        }
    )


@pytest.fixture(scope="module")
def world() -> World:
    environment = run_config().environment
    assert isinstance(environment, EnvironmentConfig)
    return build_world(environment)


def weights(policy: TrainedPolicy) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, actor in policy.actors.items()
        for key, value in actor.state_dict().items()
    }


def trained(
    world: World, run: RunConfig | None = None, seed: int = 3, **settings: Any
) -> tuple[TrainedPolicy, FederatedReport]:
    config = FederatedConfig.model_validate({"shards": 1, "rounds": 3, **settings})
    shard = torch.arange(USERS) * config.shards // USERS
    return train_federated(run or run_config(), world, shard, config, seed)


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_one_shard_is_training_on_all_to_the_bit(world: World) -> None:
    policy, report = trained(world)
    central = weights(trained_in(run_config(), world, 3, 3 * 8 * 4))
    assert same(weights(policy), central)
    twice, _ = trained(world, rounds=1, local_sweeps=3)
    assert same(weights(twice), central)
    assert not same(weights(trained(world, rounds=2)[0]), central)
    assert (report.answers, report.lost, report.epsilon) == (3, 0, None)
    assert report.bytes_up == report.bytes_down + 3 * 4 > 3 * 4 * 1000  # and each answer's weight


def test_the_server_has_the_mean_of_what_clients_learned(world: World) -> None:
    def after(**settings: Any) -> Tensor:
        found = weights(trained(world, shards=4, rounds=1, **settings)[0])
        return torch.cat([value.flatten().double() for value in found.values()])

    sent = torch.cat(
        [v.flatten().double() for v in weights(trained_in(run_config(), world, 12, 0)).values()]
    )
    near, far = after(proximal=9.0) - sent, after() - sent
    assert torch.allclose(near, far / 10, atol=1e-6) and float(far.norm()) > 0.01


def test_lost_clients_lose_nothing_and_all_lost_changes_nothing(world: World) -> None:
    policy, report = trained(world, dropout=1.0)
    assert same(weights(policy), weights(trained_in(run_config(), world, 3, 0)))
    assert (report.answers, report.lost) == (0, 3)
    some, report = trained(world, shards=4, rounds=4, dropout=0.5)
    assert 0 < report.lost < 16 and report.answers + report.lost == 16
    assert not same(weights(some), weights(policy))


def test_answers_under_noise_are_shortened_and_counted(world: World) -> None:
    bare = run_config(actor={"normalise_inputs": False})
    kept = weights(trained_in(bare, world, 6, 0))
    policy, report = trained(world, bare, shards=2, rounds=1, noise=1e-9, clip=1e-3)
    moved = torch.cat([(v - kept[k]).flatten() for k, v in weights(policy).items()])
    assert 1e-5 < float(moved.norm()) <= 1e-3 * 1.01
    assert report.epsilon is not None
    loud, _ = trained(world, bare, shards=2, rounds=1, noise=5.0, clip=1e-3)
    moved = torch.cat([(v - kept[k]).flatten() for k, v in weights(loud).items()])
    assert float(moved.std()) == pytest.approx(5.0 * 1e-3 / 2, rel=0.1)
    with pytest.raises(ConfigError, match=r"algorithm\.actor\.normalise_inputs=false"):
        trained(world, noise=1.0)


def test_what_cannot_be_federated_is_refused(world: World) -> None:
    with pytest.raises(ConfigError, match="num_sessions=8 are fewer than 9 shards"):
        trained(world, shards=9)
    values = {"algorithm": {"kind": "vdn"}}
    run = RunConfig.model_validate(run_config().model_dump(exclude={"algorithm"}) | values)
    with pytest.raises(ConfigError, match=r"algorithm\.kind"):
        trained(world, run)


def test_the_study_measures_each_setting_beside_training_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(federated_teams, "SETTINGS", {"2 shards": {"shards": 2}})
    plan = Plan(seeds=2, sessions=8, cohort=5, train_steps=64)
    report = federated_teams_cells(run_config(), plan).measured(
        lambda report: None, lambda name: None
    )
    assert len(report["cells"]) == 6
    table = federated_teams_table(report)
    assert [row[0] for row in table.rows] == ["untrained", "all users at once", "2 shards"]
    shown = {row[0]: row[2] for row in table.rows}
    clicks = {name: cell["clicks"] for name, cell in report["cells"].items()}
    more = sum(
        clicks[f"2 shards; seed {s}"] - clicks[f"all users at once; seed {s}"] for s in (0, 1)
    )
    assert shown["all users at once"] == "–"
    assert shown["2 shards"].startswith(f"{more / 2:+.1f}")
