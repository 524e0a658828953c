from __future__ import annotations

import json
from pathlib import Path

import pytest

from agents.runs.metrics_log import append_metrics, cut_metrics, read_metrics
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
    path.write_text("3\n")
    with pytest.raises(RunError, match=r"metrics.jsonl:1: not an object"):
        read_metrics(path)


def test_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for iteration in (1, 2, 3):
        append_metrics(path, {"iterations": iteration, "x": iteration / 3})
    cut_metrics(path, 2)
    assert read_metrics(path) == [{"iterations": i, "x": i / 3} for i in (1, 2)]
    cut_metrics(path, 0)
    assert path.read_text() == ""


def test_unwritable(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot write .*: Is a directory"):
        append_metrics(tmp_path, {"iterations": 1})
