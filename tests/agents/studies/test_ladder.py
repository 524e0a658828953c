"""The ladder: its bounds hold, its parts add up, and it goes on where it stopped."""

import json
from pathlib import Path

import numpy as np
import pytest

from agents.baselines.informed import Informed
from agents.baselines.teams import StaticTeam, hand_set_actions
from agents.studies import ladder
from agents.studies.headroom import LevelsPlan
from agents.studies.ladder import SearchedActions, ladder_figure, measure_ladder
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import RunError
from marec_env.evaluation.rollout import rollout
from marec_env.evaluation.statistics import paired_difference
from marec_env.simulator import Simulator
from marec_env.world import build_world
from tests.worlds import small_environment

PLAN = LevelsPlan(
    search_budget=4,
    search_sessions=8,
    search_seeds=(0, 1),
    search_cohort=5,
    sessions=64,
    cohort=4,
)
COMMITTED = Path(__file__).parents[3] / "docs/results/ladder.json"


@pytest.fixture(scope="module")
def world():
    return build_world(EnvironmentConfig.model_validate(small_environment(), strict=False))


@pytest.fixture(scope="module")
def copy(world):
    return StaticTeam(hand_set_actions(Simulator(world, 1)), "a copy of hand-set play")


@pytest.fixture(scope="module")
def report(world, copy):
    return measure_ladder(world, PLAN, 6, {"trained: copy": copy}, lambda report: None)


def _clicks(world, policy, batch=64):
    return rollout(world, policy, 64, 4, batch).per_session["clicks"].numpy()


@pytest.mark.parametrize("judge", ["beliefs", "truth"])
def test_a_search_of_one_try_plays_what_the_team_would(world, copy, judge, monkeypatch):
    monkeypatch.setattr(ladder, "_OF_THE_LAST", 1)
    search = SearchedActions("one", judge, 1, 0)
    np.testing.assert_array_equal(_clicks(world, search), _clicks(world, copy))


def test_searched_actions_beat_the_team_whose_actions_they_are(report):
    by_name = {(row["of"], row["minus"]): row for row in report["differences"]}
    gain = by_name["searched actions, by beliefs", "trained: copy"]
    assert gain["part"] == "not learned" and gain["low"] > 0


@pytest.mark.parametrize("policy", [Informed("i"), SearchedActions("s", "beliefs", 2, 1)])
def test_play_does_not_depend_on_the_batch(world, policy):
    np.testing.assert_array_equal(_clicks(world, policy), _clicks(world, policy, 24))


def test_the_parts_add_up_to_the_way_from_chance_to_the_oracle(report):
    steps = {(row["of"], row["minus"]): row["mean"] for row in report["differences"]}
    levels = {name: row["clicks"]["mean"] for name, row in report["levels"].items()}
    static = max((n for n in levels if "best static" in n), key=lambda n: levels[n])
    assert sum("best static" in name for name in levels) == 2
    way, at = 0.0, "oracle"
    while at != "random":
        below = {
            "oracle": "informed",
            "informed": "searched actions, by beliefs",
            "searched actions, by beliefs": "trained: copy",
            "trained: copy": static,
            static: "static",
            "static": "random",
        }[at]
        way, at = way + steps[at, below], below
    assert way == pytest.approx(levels["oracle"] - levels["random"])
    assert next(iter(levels)) == "random" and list(levels)[-1] == "oracle"


def test_rungs_that_are_there_are_not_played_again(world, report, copy):
    class Nobody:
        def reset(self):
            raise AssertionError("played")

        act = begin = reset

    seen = []
    again = measure_ladder(world, PLAN, 6, {"trained: copy": Nobody()}, seen.append, report)
    assert again == report
    with pytest.raises(RunError, match="another plan"):
        measure_ladder(world, PLAN, 7, {}, seen.append, report)
    before = {name: part for name, part in report["environment"].items() if name != "state"}
    older = {**report, "environment": before}  # made before there was such a key
    assert measure_ladder(world, PLAN, 6, {"trained: copy": Nobody()}, seen.append, older) == report
    for other in ({**before, "max_requests": 7}, {**before, "unknown": 1}):
        with pytest.raises(RunError, match="another environment"):
            measure_ladder(world, PLAN, 6, {}, seen.append, {**report, "environment": other})


def test_of_teams_alike_the_mean_is_a_rung_and_other_training_is_another():
    clicks = {
        "best static, search 0": [4.0, 6.0],
        "trained: short-seed0-2026": [5.0, 8.0],
        "trained: short-seed1-2027": [7.0, 9.0],
        "trained: long-seed0": [9.0, 8.0],
        "searched actions, by beliefs": [11.0, 12.5],
    }
    rows = ladder._parts(clicks, [name for name in clicks if name.startswith("trained")])
    short = "trained: short, mean of 2"
    assert {(row["part"], row["of"], row["minus"]): row["mean"] for row in rows} == {
        ("learning", short, "best static, search 0"): 2.25,
        ("learning", "trained: long-seed0", "best static, search 0"): 3.5,
        ("other training", "trained: long-seed0", short): 1.25,
        ("not learned", "searched actions, by beliefs", short): 4.5,
        ("not learned", "searched actions, by beliefs", "trained: long-seed0"): 3.25,
    }


def test_the_figure_tells_every_rung(report):
    figure = ladder_figure(report)
    lower = min(
        (n for n in report["clicks"] if "best static" in n), key=lambda n: sum(report["clicks"][n])
    )
    assert lower not in figure.alt
    for name, row in report["levels"].items():
        if name == lower:
            continue
        assert f"{name} {row['clicks']['mean']:.3g}"[:-2] in figure.alt


def test_no_trained_team_is_above_the_bound_of_its_actions():
    """Of the committed table: what the documents say of the bound."""
    clicks = json.loads(COMMITTED.read_text())["clicks"]
    teams = [name for name in clicks if name.startswith("trained")]
    assert teams
    for bound in ("searched actions, by beliefs", "informed"):
        for name in teams:
            assert paired_difference(clicks[bound], clicks[name]).high > 0
