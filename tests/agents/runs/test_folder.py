from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agents.runs.folder import RunFolder, check_place, create_run, open_run, run_name
from marec_env.errors import RunError


def test_name() -> None:
    assert run_name("marec", "mappo", 3).startswith("marec-mappo-seed3-2")


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert create_run(tmp_path / "a", unique=False).path == tmp_path / "a"
    with pytest.raises(RunError, match=r"not empty; give --run-dir another name, or .*--resume"):
        create_run(tmp_path / "a", unique=False)


def test_runs_of_one_second_get_different_folders(tmp_path: Path) -> None:
    names = [create_run(tmp_path / "runs" / "a", unique=True).name for _ in range(3)]
    assert names == ["a", "a-2", "a-3"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("precious")
    with pytest.raises(RunError, match="a is a file; give another place"):
        check_place(tmp_path / "a")
    with pytest.raises(RunError, match=r"cannot make run folder .*Not a directory; give another"):
        create_run(tmp_path / "a" / "b", unique=True)
    assert (tmp_path / "a").read_text() == "precious"


def test_an_unwritable_place() -> None:
    with pytest.raises(RunError, match=r"cannot make run folder /proc/runs/a"):
        create_run(Path("/proc/runs/a"), unique=True)


def test_a_read_only_place_is_found_before_work_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(RunError, match="is not writable; give another place"):
        check_place(Path("somewhere/a"))


def test_open(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run folder"):
        open_run(tmp_path / "none")
    with pytest.raises(RunError, match=r"not a run's folder \(it has no config.yaml\)"):
        open_run(tmp_path)
    (tmp_path / "config.yaml").write_text("{}")
    assert open_run(tmp_path) == RunFolder(tmp_path)


TRY = """
import sys
from pathlib import Path
from agents.runs.folder import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("got it")
"""


def test_one_process_at_a_time(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRY, str(tmp_path)]
    with RunFolder(tmp_path).locked():
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "in use by another training process" in refused.stderr
    assert subprocess.run(command, capture_output=True, text=True).stdout == "got it\n"
