"""The report of what there is to gain: equal users, counted budgets, searched play on its own."""

import numpy as np
import pytest

from agents.baselines.teams import StaticTeam
from agents.studies.headroom import LevelsPlan, compared, measure_levels, search_static
from marec_env.environment_config import EnvironmentConfig
from marec_env.evaluation.rollout import rollout
from marec_env.world import build_world

PLAN = LevelsPlan(
    search_budget=20,
    search_sessions=8,
    search_seeds=(0, 1),
    search_cohort=5,
    sessions=12,
    cohort=4,
    control_sessions=8,
)


@pytest.fixture(scope="module")
def world():
    return build_world(
        EnvironmentConfig.model_validate(
            {
                "max_requests": 6,
                "embeddings": {"encoder": "hashing", "cache": False},
            },
            strict=False,
        )
    )


@pytest.fixture(scope="module")
def report(world):
    hand_set = StaticTeam({a: v[0] for a, v in _defaults(world).items()}, "copy of static")
    return measure_levels(world, PLAN, {"copy": hand_set})


def _defaults(world):
    from marec_env.simulator import Simulator

    return Simulator(world, 1).default_actions()


def test_levels_are_means_on_the_held_out_cohort(world, report):
    static = StaticTeam({a: v[0] for a, v in _defaults(world).items()})
    outcomes = rollout(world, static, PLAN.sessions, PLAN.cohort)
    assert report["levels"]["static"]["clicks"]["mean"] == pytest.approx(
        float(outcomes.per_session["clicks"].mean())
    )
    assert report["levels"]["copy"] == report["levels"]["static"]


def test_differences_are_of_means_and_paired(report):
    levels = report["levels"]
    assert {row["criterion"] for row in report["differences"]} == {"clicks", "return"}
    for row in report["differences"]:
        of, minus = (levels[row[side]][row["criterion"]]["mean"] for side in ("of", "minus"))
        assert row["mean"] == pytest.approx(of - minus, abs=1e-5)


@pytest.mark.parametrize(("criterion", "name"), [("clicks", "clicks"), ("return", "F")])
def test_play_is_compared_with_what_was_searched_for_the_same(report, criterion, name):
    best = report["best_static"][criterion]
    searched = {n: level for n, level in report["levels"].items() if f"static for {name}" in n}
    assert len(searched) == 2
    assert best == max(searched, key=lambda n: searched[n][criterion]["mean"])
    references = {
        row["minus"]
        for row in report["differences"]
        if row["criterion"] == criterion and row["of"] == "copy"
    }
    assert references == {best}


def test_controls_of_a_team_that_observes_nothing_change_nothing(report):
    levels = report["levels"]
    assert levels["copy, shuffled"] == levels["copy"]
    assert levels["copy, frozen"] == levels["copy"]
    compared = {row["of"] for row in report["differences"]}
    assert {"copy", "copy, shuffled", "copy, frozen"} <= compared


def test_several_teams_are_pooled_session_by_session(world):
    team = StaticTeam({a: v[0] for a, v in _defaults(world).items()})
    report = measure_levels(world, PLAN, {"one": team, "two": team})
    pooled = report["differences"][-1]
    alone = next(
        row
        for row in report["differences"]
        if row["of"] == "one" and row["criterion"] == pooled["criterion"]
    )
    assert pooled["mean"] == pytest.approx(alone["mean"])
    assert pooled["over_teams"]["standard_error"] == pytest.approx(0.0, abs=1e-9)


def test_a_search_counts_its_steps_and_can_be_repeated(world, report):
    team, spent = search_static(world, PLAN, "clicks", 1)
    again, spent_again = search_static(world, PLAN, "clicks", 1)
    assert spent == spent_again == report["search_env_steps"][team.name]
    assert 0 < spent <= PLAN.search_budget * PLAN.search_sessions * 6
    assert all(bool((team.actions[a] == again.actions[a]).all()) for a in team.actions)


def test_nothing_is_relative_to_zero_clicks():
    found = compared(np.array([1.0, 2.0, 0.0]), np.zeros(3), "some", "none")
    assert found["relative"] is None and found["mean"] == pytest.approx(1.0)
