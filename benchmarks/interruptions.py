"""Kill training at random moments and resume it: are the metrics those of an uninterrupted run?

    python benchmarks/interruptions.py [--tries 20] [--seed 0]

Each try starts `train.py` on a tiny configuration that writes a checkpoint at every iteration (so
that many kills fall into the writing of one), sends it SIGKILL, resumes it, and compares every
number of `metrics.jsonl` but times. The moment is drawn over training, not over the process's life,
most of which is start-up: an iteration (evenly among all; the first has not begun when its turn is
counted, so that a kill "in" it falls into start-up), and a part of the mean time that an iteration
with its checkpoint takes. A run that was killed before its folder was complete is started again, as
a user would. Exit code 1 if any try differs. Five to ten minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agents.runs.metrics_log import TIME_PREFIX, read_metrics

ROOT = Path(__file__).parents[1]
ITERATIONS = 20
POLL_SECONDS = 0.002
CONFIG = f"""
environment:
  max_requests: 8
  embeddings: {{encoder: hashing, cache: false}}
  population: {{sweeps: 1}}
  knowledge: {{sweeps: 1}}
sampling: {{num_sessions: 8, rollout_length: 8}}
algorithm: {{epochs: 2}}
training: {{env_steps: {ITERATIONS * 64}, checkpoint_every: 1, keep_checkpoints: 2}}
evaluation: {{at_end: false}}
tracking: {{wandb: disabled}}
"""


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"train.py ended with {process.returncode}:\n{errors}")


def curves(run: Path) -> list[dict[str, float | None]]:
    return [
        {key: value for key, value in row.items() if not key.startswith(TIME_PREFIX)}
        for row in read_metrics(run / "metrics.jsonl")
    ]


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not reached() and process.poll() is None:
        time.sleep(POLL_SECONDS)


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def uninterrupted(config: Path, run: Path) -> tuple[list[dict[str, float | None]], float]:
    """Return the whole run's curves, and the mean seconds of an iteration with its checkpoint."""
    finish(start(config, "--run-dir", run))
    elapsed = [row["time/elapsed_seconds"] for row in read_metrics(run / "metrics.jsonl")]
    first, last = float(elapsed[0] or 0.0), float(elapsed[-1] or 0.0)
    return curves(run), (last - first) / (len(elapsed) - 1)


def interrupted(config: Path, run: Path, iterations: int, after: float) -> dict[str, Any]:
    """Kill a run so many seconds after an iteration was written down, resume it, say how it went.

    Args:
        config: what to train.
        run: folder of the new run.
        iterations: lines of `metrics.jsonl` to wait for; 0 waits for the folder.
        after: seconds from then to the kill.
    """
    process = start(config, "--run-dir", run)
    wait_until(run.exists, process)
    wait_until(lambda: lines_in(run / "metrics.jsonl") >= iterations, process)
    time.sleep(after)
    alive = process.poll() is None
    process.kill()
    process.communicate()
    lines = len(read_metrics(run / "metrics.jsonl"))
    partial = [p.name for p in run.glob("checkpoints/.partial-*")]
    if (run / "manifest.json").exists():
        finish(start("--resume", run))
    else:
        shutil.rmtree(run)
        finish(start(config, "--run-dir", run))
    return {
        "lines awaited": iterations,
        "seconds after": round(after, 3),
        "alive": alive,
        "lines": lines,
        "in a checkpoint": bool(partial),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        config = place / "tiny.yaml"
        config.write_text(CONFIG)
        expected, seconds = uninterrupted(config, place / "whole")
        assert len(expected) == ITERATIONS
        print(json.dumps({"seconds an iteration": round(seconds, 3)}), flush=True)
        tries = []
        for number in range(arguments.tries):
            run = place / str(number)
            iterations = moments.randrange(ITERATIONS)
            found = interrupted(config, run, iterations, moments.uniform(0.0, seconds))
            found["equal"] = curves(run) == expected
            tries.append(found)
            print(json.dumps(found), flush=True)
    equal = sum(bool(found["equal"]) for found in tries)
    training = sum(found["alive"] and found["lines"] > 0 for found in tries)
    writing = sum(bool(found["in a checkpoint"]) for found in tries)
    print(
        f"{equal} of {len(tries)} equal the uninterrupted run; {training} were killed in training,"
        f" {writing} of them while writing a checkpoint"
    )
    if equal < len(tries):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
