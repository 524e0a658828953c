"""The committed configuration files equal the Python defaults and load."""

from pathlib import Path

import pytest

from agents.config import RunConfig
from agents.config_files import main
from marec_env.config.loader import load
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
