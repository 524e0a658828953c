"""What a stranger's file may do, and how plug-ins that fail are told."""

from __future__ import annotations

import os

import pytest

from agents.config import RunConfig
from agents.pettingzoo_adapter import PettingZooConfig, make_pettingzoo
from marec_env.config.loader import load, load_text
from marec_env.errors import ConfigError, PluginError
from marec_env.registry import TRUSTED_FOLDERS, load_object

OWN = "environment: {rewards: {team: {'strange_terms:mine': 1}}}\n"


@pytest.fixture
def strange(tmp_path, monkeypatch):
    """A module and a configuration that names it, outside the working directory."""
    (tmp_path / "strange_terms.py").write_text("def mine(outcome):\n    return outcome\n")
    (tmp_path / "there").mkdir()
    file = tmp_path / "there" / "run.yaml"
    file.write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path / "there" / "..")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return file


def test_code_is_run_for_files_of_the_working_directory_only(strange, monkeypatch):
    load(strange, RunConfig)  # to read it runs nothing
    with pytest.raises(ConfigError, match=r"run.yaml:1:\d+: names code to run.*--allow-plugins"):
        load_object("strange_terms:mine")
    monkeypatch.setenv(TRUSTED_FOLDERS, os.pathsep.join(["/nowhere", str(strange.parent)]))
    load(strange, RunConfig)
    assert callable(load_object("strange_terms:mine"))
    monkeypatch.delenv(TRUSTED_FOLDERS)
    load(strange, RunConfig)
    with pytest.raises(ConfigError, match="allow-plugins"):
        load_object("strange_terms:mine")
    monkeypatch.setenv("MAREC_ALLOW_PLUGINS", "1")
    load(strange, RunConfig)
    assert callable(load_object("strange_terms:mine"))
    monkeypatch.delenv("MAREC_ALLOW_PLUGINS")
    load(strange, RunConfig, ["environment.rewards.team={'strange_terms:mine': 2}"])
    assert callable(load_object("strange_terms:mine"))  # typed on the command line


@pytest.mark.parametrize("path", ["os:system", "subprocess:run", "builtins:exec", "json:loads"])
def test_an_entry_point_that_makes_no_environment_is_not_called(path, tmp_path):
    config = PettingZooConfig(entry_point=path, kwargs={"command": f"touch {tmp_path}/touched"})
    with pytest.raises(ConfigError, match="is no PettingZoo environment"):
        make_pettingzoo(config)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("text", ["..:f", "a..b:f", ":f", "a:", "a b:c", "a:b:c"])
def test_a_place_has_one_form(text):
    with pytest.raises(ConfigError, match="not a place of the form"):
        load_object(text)


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("raise ValueError('no\\nluck')", PluginError, "ValueError"),
        ("import sys; sys.exit(0)", PluginError, "SystemExit"),
        ("import nowhere_at_all", ConfigError, "nowhere_at_all"),
        ("x = 1", ConfigError, "has no 'f'"),
    ],
)
def test_modules_that_fail_are_told(body, error, message, tmp_path, monkeypatch):
    name = f"failing_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(body + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(error, match=message):
        load_object(f"{name}:f")


def test_an_alias_bomb_is_refused_at_once():
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join(['*' + before] * 9)}]")
    with pytest.raises(ConfigError, match="holds more than"):
        load_text("\n".join(lines), "bomb.yaml", RunConfig)


def test_a_key_cannot_break_the_line_or_reach_the_terminal():
    with pytest.raises(ConfigError) as caught:
        load_text('"a\\nb\\x1b[31m": 3', "x\n.yaml", RunConfig)
    assert len(str(caught.value).splitlines()) == 1 and "\x1b" not in str(caught.value)
