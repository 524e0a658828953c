"""``metrics.jsonl``: one JSON object a training iteration, the truth about a run's curves.

Each line is on disk before the next iteration begins. A line cut short by a crash is dropped on
reading. Keys under ``time/`` are wall-clock measurements; all others are the same whether or not a
run was interrupted and resumed.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from marec_env import io
from marec_env.errors import RunError

__all__ = ["TIME_PREFIX", "Metrics", "append_metrics", "cut_metrics", "read_metrics"]

Metrics = Mapping[str, float | None]
"""One iteration's numbers; ``None`` where there is none (no episode ended)."""

TIME_PREFIX = "time/"


def _encode(metrics: Mapping[str, float | None]) -> str:
    """Return one line; JSON has no NaN or infinity, so they become null."""
    finite = {
        key: value if value is not None and math.isfinite(value) else None
        for key, value in metrics.items()
    }
    return json.dumps(finite, allow_nan=False) + "\n"


def append_metrics(path: Path, metrics: Mapping[str, float | None]) -> None:
    """Add one line and force it to disk.

    Raises:
        RunError: the file cannot be written.
    """
    try:
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(_encode(metrics))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def read_metrics(path: Path) -> list[dict[str, float | None]]:
    """Return all complete lines; a last line without its end is dropped, a missing file is empty.

    Raises:
        RunError: a line before the last is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from error
    lines = text.split("\n")[:-1]  # what follows the last newline was never finished
    rows: list[dict[str, float | None]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise RunError(f"{path}:{number}: damaged line; remove it to go on") from error
        if not isinstance(row, dict):
            raise RunError(f"{path}:{number}: not an object; remove the line to go on")
        rows.append(row)
    return rows


def cut_metrics(path: Path, iterations: int) -> None:
    """Drop the lines after an iteration, which a resumed run will write again."""
    kept = [row for row in read_metrics(path) if (row.get("iterations") or 0) <= iterations]
    io.write_text(path, "".join(_encode(row) for row in kept))
