"""``evaluate.py NAME``: a run's folder, a subcommand, or a line that says it is neither."""

import subprocess
import sys
from pathlib import Path

import pytest

from agents.config import RunConfig
from agents.runs.trained import load_run
from marec_env.config.yaml_source import dump
from marec_env.errors import ConfigError

ROOT = Path(__file__).parents[3]


def test_what_is_neither_a_folder_nor_a_subcommand_is_named():
    done = subprocess.run(
        [sys.executable, "evaluate.py", "runs/typo"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: 'runs/typo' is neither a run's folder nor one of: run,")
    assert len(done.stderr.splitlines()) == 1


def test_runs_of_rllibs_own_algorithms_say_why_they_cannot_be_read_back(tmp_path):
    config = RunConfig.model_validate({"algorithm": {"kind": "rllib"}})
    (tmp_path / "config.yaml").write_text(dump(config))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ConfigError, match="at the end of training only"):
        _ = load_run(tmp_path, print).policy
