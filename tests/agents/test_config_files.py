"""The committed configuration files equal the Python defaults and load."""

from pathlib import Path

import pytest

from agents.config import RunConfig
from agents.config_files import main
from marec_env.config.loader import load, load_text
from marec_env.errors import ConfigError
from marec_env.scenarios import SCENARIO_CHANGES, scenario_environment

CONFIGS = Path(__file__).parents[2] / "configs"


def test_default_and_schema_are_what_make_configs_writes(tmp_path):
    main(tmp_path)
    scenarios = [f"scenarios/{name}.yaml" for name in SCENARIO_CHANGES]
    for name in ("default.yaml", "schema.json", *scenarios):
        assert (CONFIGS / name).read_text() == (tmp_path / name).read_text(), (
            f"run: make configs ({name})"
        )


def test_default_yaml_equals_the_python_defaults():
    assert load(CONFIGS / "default.yaml", RunConfig) == RunConfig()


@pytest.mark.parametrize(
    ("name", "kind"), [("quick", "mappo"), ("ippo_own", "ippo"), ("drifting", "mappo")]
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
