"""Several seeds of one configuration, each a process and a run folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from agents.runs.train_loop import INTERRUPTED, on_signals
from marec_env.config import MAX_SEED
from marec_env.errors import ConfigError

__all__ = ["parse_seeds", "train_seeds"]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_RANGE = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")
_MAX_SEEDS = 10_000  # more is a slip of the keyboard
_TRAIN = Path(__file__).resolve().parents[2] / "train.py"


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


class _Child:
    """One training process, whose lines are shown with the seed in front."""

    def __init__(self, seed: int, command: Sequence[str]) -> None:
        self.seed = seed
        # A session of its own: Ctrl-C reaches it once, through us, not twice.
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **dict.fromkeys(_THREADS, "1")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=self._relay, args=(name,), daemon=True)
            for name in ("stdout", "stderr")
        ]
        for reader in self._readers:
            reader.start()

    def _relay(self, name: str) -> None:
        source, target = getattr(self.process, name), getattr(sys, name)
        for line in source:
            print(f"[seed {self.seed}] {line}", end="", file=target, flush=True)

    def wait(self) -> int:
        code = self.process.wait()
        for reader in self._readers:
            reader.join()
        return code


def train_seeds(
    config: str, seeds: Sequence[int], overrides: Sequence[str], group: str, jobs: int
) -> int:
    """Train every seed, ``jobs`` of them at a time; return the worst exit code.

    The seeds share a group in dashboards. A seed that fails does not stop the others; Ctrl-C stops
    all, each with a checkpoint.

    Args:
        config: YAML file.
        seeds: see :func:`parse_seeds`.
        overrides: ``section.key=value`` each.
        group: of the dashboards.
        jobs: processes at once, each with one thread.
    """
    waiting = list(seeds)
    running: list[_Child] = []
    codes: list[int] = []
    stopping = threading.Event()

    def stop(number: int, frame: object) -> None:
        stopping.set()
        for child in running:
            child.process.send_signal(number)

    with on_signals(stop):
        while running or (waiting and not stopping.is_set()):
            while waiting and len(running) < jobs and not stopping.is_set():
                seed = waiting.pop(0)
                command = [sys.executable, str(_TRAIN), config, "--group", group]
                for override in (*overrides, f"seed={seed}"):
                    command += ["--set", override]
                running.append(_Child(seed, command))
            codes.append(running[0].wait())
            running.pop(0)
    if stopping.is_set():
        return INTERRUPTED
    return max((code if code >= 0 else 128 - code for code in codes), default=0)
