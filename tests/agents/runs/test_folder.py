from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agents.runs.folder import RunFolder, check_place, create_run, open_run, run_name
from marec_env.errors import RunError


def fill(folder: RunFolder) -> None:
    folder.config.write_text("{}")
    folder.manifest.write_text("{}")


def test_name() -> None:
    assert run_name("marec", "mappo", 3).startswith("marec-mappo-seed3-2")


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert create_run(tmp_path / "a", fill, unique=False).path == tmp_path / "a"
    with pytest.raises(RunError, match=r"not empty; give --run-dir another name, or .*--resume"):
        create_run(tmp_path / "a", fill, unique=False)


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_is_there_with_all_its_files_or_not_at_all(tmp_path: Path, there: bool) -> None:
    """A run that is killed while its folder is made leaves the place as it was."""
    place = tmp_path / "runs" / "a"
    if there:
        place.mkdir(parents=True)

    def stop(folder: RunFolder) -> None:
        folder.config.write_text("{}")
        assert [p.name for p in place.parent.iterdir() if not p.name.startswith(".")] == (
            ["a"] if there else []
        )
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create_run(place, stop, unique=False)
    assert list(place.parent.rglob("*")) == ([place] if there else [])
    create_run(place, fill, unique=False)
    assert sorted(p.name for p in place.iterdir()) == [
        "checkpoints", "config.yaml", "manifest.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * 256, "too long"),
        ("ä" * 128, "too long"),
        ("/".join(["y" * 200] * 20), "too long"),
        ("a\0b", "NUL"),
        (os.fsdecode(b"bad\xff"), "no UTF-8"),
    ],
)
def test_paths_that_nothing_can_be_written_to(tmp_path: Path, name: str, reason: str) -> None:
    for refuse in (check_place, open_run):
        with pytest.raises(RunError, match=reason) as caught:
            refuse(tmp_path / name)
        assert str(caught.value).isprintable()


def test_runs_of_one_second_get_different_folders(tmp_path: Path) -> None:
    names = [create_run(tmp_path / "runs" / "a", fill, unique=True).name for _ in range(3)]
    assert names == ["a", "a-2", "a-3"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("precious")
    with pytest.raises(RunError, match="a is a file; give another place"):
        check_place(tmp_path / "a")
    with pytest.raises(RunError, match=r"cannot make run folder .*Not a directory; give another"):
        create_run(tmp_path / "a" / "b", fill, unique=True)
    assert (tmp_path / "a").read_text() == "precious"


def test_an_unwritable_place() -> None:
    with pytest.raises(RunError, match=r"cannot make run folder /proc/runs/a"):
        create_run(Path("/proc/runs/a"), fill, unique=True)


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
