"""Files of the version before, and files on top of others."""

from __future__ import annotations

import pytest

from agents.config import RunConfig
from marec_env.config.fields import all_paths
from marec_env.config.loader import load, load_text
from marec_env.config.moved import GONE, MOVED
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError

OLD = """
environment:
  users:
    boredom: {kind: threshold, weight: 5.0, window: 5, duration: 5}
    kuaisim: {temper: 20.0}
    friends: {influence: 0.8, near: 6}
"""


def test_keys_at_their_old_defaults_are_dropped_and_told(capsys):
    config = load_text(OLD, "old.yaml", RunConfig)
    assert config.environment.users.boredom.weight == 5.0
    assert config.environment.users.friends.influence == 0.8
    said = capsys.readouterr().err
    assert "old.yaml" in said and "(4 in all)" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("environment: {users: {kuaisim: {temper: 3.0}}}", "users.settings"),
        ("environment: {users: {friends: {near: 5}}}", "it is a constant now"),
        ("environment: {users: {boredom: {kind: none, window: 6}}}", "has no effect with kind"),
    ],
)
def test_other_values_of_gone_keys_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        load_text(text, "old.yaml", RunConfig)


def test_moved_keys_arrive_and_are_told(capsys, monkeypatch):
    monkeypatch.setitem(MOVED, "environment.patience_gain", "environment.users.patience.gain")  # type: ignore[arg-type]
    for model, text in (
        (RunConfig, "environment: {patience_gain: 0.3}"),
        (EnvironmentConfig, "patience_gain: 0.3"),
    ):
        config = load_text(text, "old.yaml", model)
        users = config.environment.users if model is RunConfig else config.users
        assert users.patience.gain == 0.3
        assert "environment.users.patience.gain now" in capsys.readouterr().err
    both = "environment: {patience_gain: 0.3, users: {patience: {gain: 0.4}}}"
    with pytest.raises(ConfigError, match="which is given as well"):
        load_text(both, "old.yaml", RunConfig)


def test_the_table_names_keys_that_are_gone_or_belong_to_one_kind():
    known = set(all_paths(RunConfig))
    assert not [new for new in MOVED.values() if new not in known]
    for old, (_, instead) in GONE.items():
        assert bool(instead) == (old not in known), old


def test_a_file_stands_on_top_of_another(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "name: base\nenvironment:\n  users:\n    boredom: {kind: threshold, weight: 3}\n"
        "    patience: {gain: 0.5}\n"
    )
    (tmp_path / "sub").mkdir()
    top = tmp_path / "sub" / "top.yaml"
    top.write_text(
        "extends: ../base.yaml\nenvironment:\n  users:\n    boredom: {kind: none}\n"
        "    patience: {cost: 0.2}\n"
    )
    config = load(top, RunConfig, ["seed=7"])
    users = config.environment.users
    assert (config.name, config.seed, users.boredom.kind) == ("base", 7, "none")
    assert (users.patience.gain, users.patience.cost) == (0.5, 0.2)


def test_errors_name_the_file_and_line_that_said_it(tmp_path):
    (tmp_path / "base.yaml").write_text("seed: 1\ntraining: {env_steps: -1}\n")
    (tmp_path / "top.yaml").write_text("extends: base.yaml\nname: top\n")
    with pytest.raises(ConfigError, match=r"base.yaml:2:23: training.env_steps: must be"):
        load(tmp_path / "top.yaml", RunConfig)
    (tmp_path / "base.yaml").write_text("extends: top.yaml\n")
    with pytest.raises(ConfigError, match=r"top.yaml -> base.yaml -> top.yaml"):
        load(tmp_path / "top.yaml", RunConfig)
    (tmp_path / "base.yaml").unlink()
    with pytest.raises(ConfigError, match=r"top.yaml:1:10: extends: .*no such configuration file"):
        load(tmp_path / "top.yaml", RunConfig)
