"""The committed configuration files equal the Python defaults and load."""

import json
from pathlib import Path

import pytest

from agents.config import RunConfig
from docs.make_reference import main, page
from marec_env.config.fields import all_paths
from marec_env.config.loader import load, load_text
from marec_env.errors import ConfigError
from marec_env.scenarios import SCENARIO_CHANGES, scenario_environment

CONFIGS = Path(__file__).parents[2] / "configs"


def test_the_reference_pages_are_what_make_configs_writes(tmp_path, capsys):
    main([], tmp_path)
    for name in ("reference.md", "fields.md"):
        committed = CONFIGS.parent / "docs" / name
        assert (tmp_path / name).read_text() == committed.read_text(), "run: make configs"
    main(["schema"])
    assert json.loads(capsys.readouterr().out)["title"] == "RunConfig"


def test_the_reference_names_every_key_with_its_range():
    for path in all_paths(RunConfig):
        assert f"`{path}" in page(), path
    assert "| `sampling.num_sessions` | whole number | `256` | from 1" in page()
    assert "## environment.users.patience (with kind `hazard`)" in page()


@pytest.mark.parametrize("file", sorted(CONFIGS.rglob("*.yaml")), ids=lambda file: file.stem)
def test_a_shipped_file_says_what_the_run_is(file):
    assert len(file.read_text().splitlines()) <= 40
    load(file, RunConfig)


def test_default_yaml_equals_the_python_defaults():
    assert load(CONFIGS / "default.yaml", RunConfig) == RunConfig()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("quick", "mappo"), ("ippo_own", "ippo"), ("drifting", "mappo"), ("private", "mappo")],
)
def test_other_configurations_load(name, kind):
    config = load(CONFIGS / f"{name}.yaml", RunConfig)
    assert config.algorithm.kind == kind


@pytest.mark.parametrize("name", SCENARIO_CHANGES)
def test_scenarios_load_as_their_presets(name):
    config = load(CONFIGS / "scenarios" / f"{name}.yaml", RunConfig)
    assert config.environment == scenario_environment(name)


def test_discount_depends_on_the_task_unless_given():
    def gamma(text):
        return load_text(text, "t.yaml", RunConfig).algorithm.gamma

    other = "environment: {kind: pettingzoo, entry_point: 'a:b'}\n"
    assert RunConfig().algorithm.gamma == 0.8
    assert gamma("algorithm: {kind: vdn}") == 0.8
    assert gamma("algorithm: {kind: ippo, gamma: 0.99}") == 0.99
    assert gamma(other) == 0.99
    assert gamma(f"{other}algorithm: {{gamma: 0.8}}") == 0.8
    load_text("algorithm: {kind: rllib, name: APPO}", "t.yaml", RunConfig)  # has its own settings


def test_inputs_are_normalised_on_the_recommender_only_unless_said():
    other = "environment: {kind: pettingzoo, entry_point: 'a:b'}\n"
    ippo = (
        "algorithm: {kind: ippo, critic: {normalise_inputs: true}, actor: {hidden: [8]},"
        " components: {a_0: {actor: {hidden: [4]}}, b_0: {actor: {normalise_inputs: true}}}}\n"
    )
    assert RunConfig().algorithm.actor.normalise_inputs
    assert load_text(ippo, "t.yaml", RunConfig).algorithm.components["a_0"].actor.normalise_inputs
    config = load_text(other + ippo, "t.yaml", RunConfig)
    found = config.algorithm
    assert found.critic.normalise_inputs
    assert not found.actor.normalise_inputs
    assert found.actor.hidden == (8,)
    assert not found.components["a_0"].actor.normalise_inputs
    assert found.components["b_0"].actor.normalise_inputs
    values = load_text(f"{other}algorithm: {{kind: vdn}}", "t.yaml", RunConfig).algorithm
    assert not values.network.normalise_inputs
    assert RunConfig.model_validate(config.model_dump(mode="json"), strict=False) == config


def test_shaping_has_the_learners_discount():
    text = "environment: {rewards: {shaping: [{weight: 0.5, gamma: %s}]}}\nalgorithm: {gamma: %s}\n"
    assert load_text(text % (0.9, 0.9), "t.yaml", RunConfig).algorithm.gamma == 0.9
    with pytest.raises(ConfigError, match=r"shaping\[0\].gamma is 0.99 and algorithm.gamma 0.8"):
        load_text(text % (0.99, 0.8), "t.yaml", RunConfig)
    stock = (
        "algorithm: {kind: rllib, name: PPO%s}\nenvironment: {rewards: {shaping: [{gamma: %s}]}}\n"
    )
    load_text(stock % ("", 0.99), "t.yaml", RunConfig)
    load_text(stock % (", settings: {gamma: 0.5}", 0.5), "t.yaml", RunConfig)
    with pytest.raises(ConfigError, match=r"gamma is 0.5 and algorithm.gamma 0.99"):
        load_text(stock % ("", 0.5), "t.yaml", RunConfig)
    unset = "environment: {rewards: {shaping: [{weight: 0.5}]}}\n"
    config = load_text(unset, "t.yaml", RunConfig)
    assert config.environment.rewards.shaping[0].gamma == config.algorithm.gamma
