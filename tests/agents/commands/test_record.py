"""A policy trained elsewhere becomes a run that is compared, and says what it is not."""

import json

import pytest

import marec_env
from agents import record_policy
from agents.baselines.teams import RandomTeam
from agents.commands.evaluate import command as evaluate
from agents.commands.train import start_run
from agents.comparison.grouping import group_runs
from agents.comparison.runs import read_run
from agents.config import RunConfig
from agents.runs.trained import load_run
from marec_env.config.loader import load_mapping
from marec_env.errors import ConfigError, MarecError
from tests.worlds import small_environment

SMALL = small_environment(60, 200)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    place = tmp_path_factory.mktemp("recorded")
    document = {
        "environment": SMALL,
        "evaluation": {"sessions": 6, "baselines": ["static"]},
        "output": str(place / "runs"),
    }
    (place / "run.yaml").write_text(json.dumps(document))
    return place / "run.yaml"


@pytest.fixture(scope="module")
def team():
    return RandomTeam(marec_env.make_vec(SMALL, num_sessions=2).action_spaces, seed=4)


@pytest.fixture(scope="module")
def folders(config, team):
    settings = [{"rate": 0.1}, {"rate": 0.1}, {"rate": 0.2}]
    return [
        record_policy(team, config, "drawn", 70, seed=seed, settings=one)
        for seed, one in enumerate(settings)
    ]


def test_its_seeds_are_one_experiment_and_other_settings_another(folders):
    runs = [read_run(folder) for folder in folders]
    assert all(not run.defects for run in runs), [run.defects for run in runs]
    assert runs[1].metrics == [{"env_steps": 70.0, "iterations": 1.0}]
    labels = [(group.label, group.seeds) for group in group_runs(runs).groups]
    assert labels == [("drawn rate=0.1", [0, 1]), ("drawn rate=0.2", [2])]
    found = json.loads((folders[0] / "evaluation.json").read_text())
    assert (found["sessions"], found["env_steps"]) == (6, 70)
    assert set(found["policies"]) == {"trained team", "static"}
    manifest = json.loads((folders[0] / "manifest.json").read_text())
    assert "data (synthetic/streaming)" in manifest["inputs"]
    assert manifest["seeds"] == {"run": 0}


def test_metrics_of_ones_own_are_reported_and_pay_nobody(config, team, tmp_path):
    document = json.loads(config.read_text())
    own = "examples.own_reward:tail_clicks"
    document["evaluation"]["metrics"] = [own, "coverage", "engagement"]
    measured = load_mapping(document, RunConfig, "test")
    folders = [
        record_policy(team, one, "drawn", 70, run_dir=tmp_path / name)
        for name, one in (("with", measured), ("without", config))
    ]
    found = [json.loads((one / "evaluation.json").read_text())["policies"] for one in folders]
    for name in ("trained team", "static"):
        rich, plain = (policies[name]["outcomes"] for policies in found)
        assert {*rich} - {*plain} == {f"term/{own}", "term/coverage"}
        assert 0 <= rich[f"term/{own}"]["mean"] <= 1
        assert rich["return"] == plain["return"]
    assert read_run(folders[0]).experiment == read_run(folders[1]).experiment
    assert own in (folders[0] / "report.html").read_text()
    document["evaluation"]["metrics"] = ["coverag"]
    wrong = load_mapping(document, RunConfig, "test")
    with pytest.raises(ConfigError, match=r"evaluation\.metrics: .*did you mean 'coverage'"):
        record_policy(team, wrong, "drawn", 70, run_dir=tmp_path / "wrong")


def test_it_is_not_read_back_nor_trained_here(folders):
    for read in (lambda: load_run(folders[0]).policy, lambda: evaluate([folders[0]])):
        with pytest.raises(ConfigError, match="'drawn' was trained elsewhere"):
            read()
    with pytest.raises(ConfigError, match=r"agents\.record_policy"):
        start_run(str(folders[0] / "config.yaml"), [], folders[0].parent / "again")
    assert not (folders[0].parent / "again").exists()


def test_nothing_is_written_of_a_policy_that_fails(config, team):
    before = sorted(config.parent.glob("runs/*"))
    other = RandomTeam(marec_env.make_vec(
        {**SMALL, "pipeline": {"candidates": 20, "slate_size": 5, "half_lives": [1.0]}}, 2
    ).action_spaces)  # fmt: skip
    with pytest.raises(MarecError, match="profile_0: action has shape"):
        record_policy(other, config, "other", 10)
    with pytest.raises(ConfigError, match="env_steps"):
        record_policy(team, config, "drawn", 0)
    assert sorted(config.parent.glob("runs/*")) == before
