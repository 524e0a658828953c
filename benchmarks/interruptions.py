"""Kill training at random moments and resume it: are the metrics those of an uninterrupted run?

    python benchmarks/interruptions.py [--tries 20] [--seed 0]

Each try starts `train.py` on a tiny configuration that writes a checkpoint at every iteration (so
that many kills fall into the writing of one), sends it SIGKILL at a moment drawn evenly from the
whole run's duration, resumes it, and compares every number of `metrics.jsonl` but times. A run that
was killed before its folder was complete is started again, as a user would. Exit code 1 if any try
differs. Five to ten minutes on one core.
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
from pathlib import Path
from typing import Any

from agents.runs.metrics_log import TIME_PREFIX, read_metrics

ROOT = Path(__file__).parents[1]
ITERATIONS = 20
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


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists() and process.poll() is None:
        time.sleep(0.005)


def uninterrupted(config: Path, run: Path) -> tuple[list[dict[str, float | None]], float]:
    """Return the whole run's curves, and its seconds from the first file of its folder on."""
    process = start(config, "--run-dir", run)
    wait_for(run, process)
    began = time.perf_counter()
    finish(process)
    return curves(run), time.perf_counter() - began


def interrupted(config: Path, run: Path, after: float) -> dict[str, Any]:
    """Kill a run so many seconds after its folder appeared, resume it, and say how it went."""
    process = start(config, "--run-dir", run)
    wait_for(run, process)
    time.sleep(after)
    process.kill()
    process.communicate()
    lines = len(read_metrics(run / "metrics.jsonl"))
    partial = [p.name for p in run.glob("checkpoints/.partial-*")]
    if (run / "manifest.json").exists():
        finish(start("--resume", run))
    else:
        shutil.rmtree(run)
        finish(start(config, "--run-dir", run))
    return {"seconds": round(after, 3), "lines": lines, "in a checkpoint": bool(partial)}


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
        tries = []
        for number in range(arguments.tries):
            run = place / str(number)
            found = interrupted(config, run, moments.uniform(0.0, seconds))
            found["equal"] = curves(run) == expected
            tries.append(found)
            print(json.dumps(found), flush=True)
    equal = sum(bool(found["equal"]) for found in tries)
    writing = sum(bool(found["in a checkpoint"]) for found in tries)
    print(f"{equal} of {len(tries)} equal the uninterrupted run; {writing} killed while writing")
    if equal < len(tries):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
