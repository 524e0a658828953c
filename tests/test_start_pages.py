"""The commands of the pages for three kinds of people, each run here in a small world."""

import ast
import re
import runpy
import shlex
from glob import glob
from pathlib import Path

import pytest
import yaml

from agents.cli import main, run
from tests.worlds import small_environment

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs/start").glob("*.md"))
SMALL = {
    "name": "quick",
    "environment": small_environment(
        60, 200, max_requests=3, population={"history": 12, "sweeps": 1}, knowledge={"sweeps": 1}
    ),
    "sampling": {"num_sessions": 8, "rollout_length": 8},
    "algorithm": {"epochs": 1},
    "training": {"env_steps": 128},
    "evaluation": {"sessions": 8, "baselines": ["random"]},
    "tracking": {"wandb": "disabled"},
}


def commands(page):
    """Return the commands of a page's table, in order."""
    rows = [
        line.strip("| ").split(" | ") for line in page.read_text().splitlines() if "| `" in line
    ]
    return [row[1].strip("`") for row in rows]


def newest():
    return max(glob("runs/*"), key=lambda run: Path(run, "manifest.json").stat().st_mtime_ns)


def play(command):
    """Run a command in this process and return its exit code; several seeds are one."""
    command = re.sub(r"--seeds (\d+)-\d+", r"--set seed=\1", command)
    command = re.sub(r"\bRUN\b", lambda _: newest(), command)
    words = [w for word in shlex.split(command) for w in (glob(word) if "*" in word else [word])]
    match words:
        case ["make", "train", config]:
            return run("train", [config.removeprefix("CONFIG=")])
        case ["marec", *rest]:
            return main(rest)
        case ["python", "train.py", *rest]:
            return run("train", rest)
        case ["python", "evaluate.py", *rest]:
            return runpy.run_path(str(ROOT / "evaluate.py"))["main"](rest)
    raise AssertionError(f"no such command: {command}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    for place in ("configs/quick.yaml", "quick"):
        (tmp_path / place).write_text(yaml.safe_dump(SMALL))
    found = commands(page)
    assert 5 <= len(found) <= 8
    for command in found:
        if command.startswith("python examples/"):  # run by tests/examples
            script = ast.parse((ROOT / command.split()[1]).read_text())
            told = " ".join((ast.get_docstring(script) or "").split())
            assert f"``{command}``" in told or f"``{command} FOLDER``" in told, command
        else:
            assert play(command) == 0, command
