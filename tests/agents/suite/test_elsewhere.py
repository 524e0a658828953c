"""``evaluation.environment``: a team evaluated on other users than it was trained on."""

import pytest

from agents.commands.cohort import EvaluationCohort
from agents.comparison.grouping import world_of
from agents.comparison.runs import Run
from agents.config import RunConfig
from agents.runs.environment import evaluation_world, run_world
from agents.suite.algorithms import Algorithm
from agents.suite.runs import _runs
from marec_env.config.loader import load_mapping
from marec_env.errors import ConfigError
from tests.worlds import small_environment

ELSEWHERE = {
    "data": {"synthetic": {"seed": 5}},
    "users": {"patience": {"kind": "hazard", "hazard": 0.3}, "new_user_share": 1.0},
}


def config(changes, **sections):
    environment = small_environment(users={"patience": {"kind": "none"}}, **sections)
    return load_mapping(
        {"environment": environment, "evaluation": {"environment": changes}}, RunConfig, "test"
    )


def test_sections_are_laid_over_and_another_kind_replaces_its_own():
    found = config(ELSEWHERE).evaluated_in
    assert found.data.synthetic.seed == 5
    assert found.data.synthetic.num_users == 120  # kept
    assert found.users.patience.kind == "hazard"
    assert found.users.patience.hazard == 0.3
    assert config({}).evaluated_in is not None
    assert config(ELSEWHERE).environment.users.patience.kind == "none"


def test_the_team_meets_the_users_of_there():
    here, there = config({}), config(ELSEWHERE)
    world = evaluation_world(there)
    assert evaluation_world(here).config == run_world(here).config
    assert world.config.users.new_user_share == 1.0
    assert world.log.fingerprint != run_world(there).log.fingerprint


def test_what_does_not_fit_is_told():
    with pytest.raises(ConfigError, match=r"evaluation.environment: users.patiense"):
        config({"users": {"patiense": {}}})
    with pytest.raises(ConfigError, match=r"profile_0 would have other observation spaces there"):
        evaluation_world(config({"catalog": {"num_topics": 3}}, catalog={"num_topics": 4}))
    with pytest.raises(ConfigError, match="'marec' only"):
        load_mapping(
            {
                "environment": {"kind": "pettingzoo", "entry_point": "a:b"},
                "evaluation": {"environment": {"max_requests": 3}},
            },
            RunConfig,
            "test",
        )


def test_runs_are_compared_by_the_users_they_were_evaluated_on():
    def run(changes, **sections):
        found = config(changes, **sections)
        return Run(None, 0, found.model_dump(mode="json"), "", ())

    away = run(ELSEWHERE)
    home = run({}, data={**small_environment()["data"]})
    assert world_of(away) != world_of(home)
    there = config(ELSEWHERE).evaluated_in
    trained_there = Run(None, 0, RunConfig(environment=there).model_dump(mode="json"), "", ())
    assert world_of(away) == world_of(trained_there)


def test_an_algorithm_at_home_trains_where_it_is_evaluated(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text(
        "environment: {data: {source: synthetic/streaming}, users: {patience: {kind: none}}}\n"
        "evaluation: {environment: {users: {patience: {kind: hazard, hazard: 0.3}}}}\n"
    )
    from marec_env.config.loader import load

    base = load(preset, RunConfig)
    algorithms = {"away": Algorithm("a"), "home": Algorithm("b", at_home=True, begins_with="away")}
    away, home = _runs("t", str(preset), base, algorithms, [3], [], tmp_path / "t")
    assert away.config.environment.users.patience.kind == "none"
    assert home.config.environment == away.config.evaluated_in == home.config.evaluated_in
    assert home.begins_with == away.folder
    assert home.seed == home.config.seed == 3


def test_an_evaluation_plays_there(tmp_path):
    there = config(ELSEWHERE)
    world = evaluation_world(there)
    from agents.baselines import build_baseline
    from marec_env.simulator import Simulator

    policy = build_baseline("random", Simulator(world, 1, autoreset=False))
    settings = there.evaluation.model_copy(update={"sessions": 8, "baselines": ()})
    found = EvaluationCohort(world, settings).play(policy)
    assert bool(found.is_new.all())
