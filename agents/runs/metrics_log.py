"""``metrics.jsonl``: one JSON object a training iteration, the truth about a run's curves.

Each line is on disk before the next iteration begins. A line cut short by a crash is dropped on
reading. Keys under ``time/`` are wall-clock measurements; all others are the same whether or not a
run was interrupted and resumed.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import FiniteFloat, TypeAdapter

from marec_env import io
from marec_env.errors import RunError

Metrics = Mapping[str, float | None]
"""One iteration's numbers; ``None`` where there is none (no episode ended)."""

TIME_PREFIX = "time/"
_LONGEST_LINE = 1 << 18  # bytes; more than any team's numbers take
_ROW = TypeAdapter(dict[str, FiniteFloat | None])


def _encode(metrics: Metrics) -> str:
    """Return one line; JSON has no NaN or infinity, so they become null."""
    finite = {k: v if v is not None and math.isfinite(v) else None for k, v in metrics.items()}
    return json.dumps(finite, allow_nan=False) + "\n"


def append_metrics(path: Path, metrics: Metrics) -> None:
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
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(_ROW.validate_json(line))
        except ValueError as error:
            raise RunError(
                f"{path}:{number}: damaged line, not an object of numbers; restore the file"
            ) from error
    return rows


def last_metrics(path: Path) -> Metrics:
    """Return the last complete line, empty where there is none: of a run that another process
    writes.
    """
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LONGEST_LINE))
            lines = stream.read().split(b"\n")[:-1]
        return _ROW.validate_json(lines[-1])
    except (OSError, ValueError, IndexError):
        return {}


def missing_rows(rows: Sequence[Metrics]) -> int:
    """Return how many iterations before the last one left no line."""
    return max(0, int(rows[-1].get("iterations") or 0) - len(rows)) if rows else 0


def restore_metrics(path: Path, iterations: int, copy: Path | None) -> str | None:
    """Bring a run's metrics to where it goes on: later lines, which it writes again, are dropped.

    ``copy`` holds the metrics as the checkpoint has them, if it has any.

    Returns:
        What was wrong with the file, ``None`` if it was as the run had written it.

    Raises:
        RunError: lines are damaged, and there is no copy.
    """
    if copy is not None and copy.exists():
        good = copy.read_bytes()
        try:
            whole = path.read_bytes().startswith(good)
        except OSError:
            whole = False
        io.write_bytes(path, good)
        told = f"{path} was not as the run had written it; restored from the checkpoint's copy"
        return None if whole else told
    kept = [row for row in read_metrics(path) if (row.get("iterations") or 0) <= iterations]
    io.write_text(path, "".join(_encode(row) for row in kept))
    if len(kept) == iterations:
        return None
    return f"{path} has {len(kept)} of {iterations} iterations, and the checkpoint has no copy"
