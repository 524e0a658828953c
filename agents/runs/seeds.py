"""Several seeds of one configuration, each a process and a run folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from agents.runs.train_loop import INTERRUPTED, on_signals
from marec_env.config import MAX_SEED
from marec_env.errors import ConfigError

__all__ = ["parse_seeds", "train_seeds"]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_RANGE = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")
_MAX_SEEDS = 10_000  # more is a slip of the keyboard
_ROOT = str(Path(__file__).resolve().parents[2])


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of ``0-9``, ``1,4,7`` or ``0-3,8``, in order, each once.

    Raises:
        ConfigError: the text is of another form, or a range runs backwards.
    """
    seeds: dict[int, None] = {}
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise ConfigError(f"--seeds {text}: '{part}' is neither a seed nor a range such as 0-9")
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if last < first:
            raise ConfigError(f"--seeds {text}: range '{part}' runs backwards")
        if last > MAX_SEED:
            raise ConfigError(f"--seeds {text}: seeds lie between 0 and {MAX_SEED:,} (got {last})")
        if last - first >= _MAX_SEEDS:
            raise ConfigError(f"--seeds {text}: more than {_MAX_SEEDS} seeds")
        seeds.update(dict.fromkeys(range(first, last + 1)))
    return list(seeds)


def _relay(seed: int, source: IO[str], target: IO[str]) -> None:
    """Show a process's lines with the seed in front."""
    for line in source:
        print(f"[seed {seed}] {line}", end="", file=target, flush=True)


def train_seeds(
    config: str, seeds: Sequence[int], overrides: Sequence[str], group: str, jobs: int
) -> int:
    """Train every seed, ``jobs`` of them at a time, each in a process with one thread; return the
    worst exit code.

    A seed that fails does not stop the others; Ctrl-C stops all, each with a checkpoint.

    Args:
        config: YAML file.
        seeds: see :func:`parse_seeds`.
        overrides: ``section.key=value`` each.
        group: of the dashboards, which the seeds share.
        jobs: processes at once.
    """
    running: dict[int, subprocess.Popen[str]] = {}
    starting, stopping = threading.Lock(), threading.Event()

    def stop(number: int, frame: object) -> None:
        stopping.set()
        with starting:
            for process in running.values():
                process.send_signal(number)

    def train_one(seed: int) -> int:
        settings = [part for one in (*overrides, f"seed={seed}") for part in ("--set", one)]
        path = os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))
        with starting:
            if stopping.is_set():
                return INTERRUPTED
            # A session of its own: Ctrl-C reaches it once, through us, not twice.
            process = running[seed] = subprocess.Popen(
                [sys.executable, "-m", "agents.cli", "train", config, "--group", group, *settings],
                env={**os.environ, **dict.fromkeys(_THREADS, "1"), "PYTHONPATH": path},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            )  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        errors = threading.Thread(target=_relay, args=(seed, process.stderr, sys.stderr))
        errors.start()
        _relay(seed, process.stdout, sys.stdout)
        errors.join()
        code = process.wait()
        return code if code >= 0 else 128 - code

    with on_signals(stop), ThreadPoolExecutor(jobs) as pool:
        codes = list(pool.map(train_one, seeds))
    return INTERRUPTED if stopping.is_set() else max(codes, default=0)
