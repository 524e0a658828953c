"""The committed configuration files equal the Python defaults and load."""

from pathlib import Path

import pytest

from agents.config import RunConfig
from agents.config_files import main
from marec_env.config.loader import load

CONFIGS = Path(__file__).parents[2] / "configs"


def test_default_and_schema_are_what_make_configs_writes(tmp_path):
    main(tmp_path)
    for name in ("default.yaml", "schema.json"):
        assert (CONFIGS / name).read_text() == (tmp_path / name).read_text(), (
            f"run: make configs ({name})"
        )


def test_default_yaml_equals_the_python_defaults():
    assert load(CONFIGS / "default.yaml", RunConfig) == RunConfig()


@pytest.mark.parametrize(("name", "kind"), [("quick", "mappo"), ("ippo_own", "ippo")])
def test_other_configurations_load(name, kind):
    config = load(CONFIGS / f"{name}.yaml", RunConfig)
    assert config.algorithm.kind == kind
