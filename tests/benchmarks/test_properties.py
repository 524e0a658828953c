"""The printed properties measure what they say, those of users alone hold, and they can fail."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from agents.baselines.teams import StaticTeam
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError
from marec_env.evaluation.rollout import rollout
from marec_env.simulator import Simulator
from marec_env.world import World, build_world

ROOT = Path(__file__).parents[2]
measured = SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks" / "properties.py")))
duplicates, nominators = measured.duplicates, measured.nominators
of_users, play_recall, report = measured.of_users, measured.play_recall, measured.report

PLAN = measured.PropertiesPlan(sessions=12, random_levels=4)


def make(channels: tuple[str, ...] | None = None) -> World:
    recall = {} if channels is None else {"recall": {"channels": channels}}
    return build_world(
        EnvironmentConfig.model_validate(
            {
                "max_requests": 4,
                "data": {
                    "source": "synthetic/social",
                    "synthetic": {"num_users": 60, "num_items": 300, "days": 8},
                },
                "embeddings": {"encoder": "hashing", "cache": False},
                "pipeline": {"candidates": 20, **recall},
            },
            strict=False,
        )
    )


@pytest.fixture(scope="module")
def world() -> World:
    return make()


def test_static_recall_is_played_as_by_a_rollout(world: World) -> None:
    defaults = {agent: action[0] for agent, action in Simulator(world, 1).default_actions().items()}
    levels = torch.ones(2, len(world.config.pipeline.recall.channels), dtype=torch.int64)
    levels[0, 1:] = 0
    played = play_recall(world, levels, 8, 3)
    for row, chosen in enumerate(levels):
        team = StaticTeam({**defaults, "recall_0": chosen})
        outcomes = rollout(world, team, 8, 3)
        assert torch.equal(played.clicks[row], outcomes.per_session["clicks"])
        # What all channels brought is what the funnel counts among the candidates.
        assert torch.allclose(played.found[row].sum(1), outcomes.funnel["candidates"], atol=1e-4)
    assert float(played.found[0, :, 0].sum()) > float(played.found[1, :, 0].sum())


def test_one_channel_twice_recalls_nothing_but_duplicates(world: World) -> None:
    same = duplicates(world, PLAN, "cf", "cf")
    assert same.found.startswith("100.0 % ± 0.0")
    assert same.holds
    other = duplicates(world, PLAN, "cf", "popular")
    assert not other.found.startswith("100.0 %")


def test_one_channel_fills_all_places_and_has_no_properties() -> None:
    single = make(("cf",))
    with pytest.raises(ConfigError, match=r"recall.channels.*missing: item_to_item"):
        report(single, PLAN)
    line = nominators(single, PLAN)
    assert not line.holds  # whatever the level, one channel fills all places
    assert "+0.0 % ± 0.0 clicks against random levels" in line.found


def test_the_report_has_every_property(world: World) -> None:
    assert [line.number for line in report(world, PLAN)] == [4, 5, 6]


def test_every_property_of_users_alone_holds() -> None:
    lines = of_users(120)
    assert all(line.holds for line in lines)
    assert [line.number for line in lines] == [1, 2, 7, 9, 10, 12]


def test_another_seed_gives_other_numbers_and_the_same_verdicts() -> None:
    one, other = of_users(60, seed=0), of_users(60, seed=5)
    assert [line.found for line in one[:5]] != [line.found for line in other[:5]]
    assert all(line.holds for line in other)
