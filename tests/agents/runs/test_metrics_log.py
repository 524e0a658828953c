from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.runs.metrics_log import append_metrics, missing_rows, read_metrics, restore_metrics
from marec_env.errors import RunError


def test_what_json_cannot_say_becomes_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_metrics(path, {"iterations": 1, "a": float("nan"), "b": float("inf"), "c": 0.1})
    assert json.loads(path.read_text()) == {"iterations": 1, "a": None, "b": None, "c": 0.1}
    assert read_metrics(path) == [{"iterations": 1, "a": None, "b": None, "c": 0.1}]


def test_missing_file_is_empty(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_only_the_last_line_may_be_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iterations": 1}\n{"iterations": 2}\n{"iterations": 3}')
    assert [row["iterations"] for row in read_metrics(path)] == [1, 2]
    path.write_text('{"iterations": 1}\n{"itera\n{"iterations": 3}\n')
    with pytest.raises(RunError, match=r"metrics.jsonl:2: damaged line"):
        read_metrics(path)


@pytest.mark.parametrize("line", ["3", "[]", '{"a": "x"}', '{"a": [1]}', '{"a": {}}', "[" * 9999])
def test_lines_of_another_shape(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"iterations": 1}}\n{line}\n')
    with pytest.raises(RunError, match=r"metrics.jsonl:2: damaged line, not an object of numbers"):
        read_metrics(path)


def test_later_lines_are_dropped_where_a_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for iteration in (1, 2, 3):
        append_metrics(path, {"iterations": iteration, "x": iteration / 3})
    assert restore_metrics(path, 2, None) is None
    assert read_metrics(path) == [{"iterations": i, "x": i / 3} for i in (1, 2)]
    assert restore_metrics(path, 0, None) is None
    assert path.read_text() == ""
    assert restore_metrics(path, 2, tmp_path / "of an older version") == (
        f"{path} has 0 of 2 iterations, and the checkpoint has no copy"
    )


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text(path.read_text()[:-30]),
        lambda path: path.write_text(path.read_text().replace("0.5", "0.6")),
        lambda path: path.write_text("".join(path.read_text().splitlines(keepends=True)[1:])),
        lambda path: path.write_bytes(b"\xff" + path.read_bytes()),
    ],
)
def test_lost_and_edited_lines_are_restored_and_told(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    path, copy = tmp_path / "metrics.jsonl", tmp_path / "copy.jsonl"
    for iteration in (1, 2):
        append_metrics(path, {"iterations": iteration, "x": iteration / 2})
    copy.write_bytes(path.read_bytes())
    append_metrics(path, {"iterations": 3, "x": 1.5})
    assert restore_metrics(path, 2, copy) is None
    harm(path)
    told = restore_metrics(path, 2, copy)
    assert told is not None and "restored from the checkpoint's copy" in told
    assert path.read_bytes() == copy.read_bytes()


def test_rows_that_are_not_there_are_counted() -> None:
    assert missing_rows([]) == missing_rows([{"iterations": 1}, {"iterations": 2}]) == 0
    assert missing_rows([{"iterations": 31}, {"iterations": 32}]) == 30
    assert missing_rows([{"env_steps": 5.0}]) == 0


def test_unwritable(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot write .*: Is a directory"):
        append_metrics(tmp_path, {"iterations": 1})
