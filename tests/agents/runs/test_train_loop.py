from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agents.config import TrainingConfig
from agents.runs.checkpoints import latest_checkpoint
from agents.runs.folder import RunFolder
from agents.runs.metrics_log import TIME_PREFIX, read_metrics
from agents.runs.progress import ProgressDisplay
from agents.runs.tracking import Trackers
from agents.runs.train_loop import Stop, TrainingResult, in_turn, iterations
from marec_env.errors import MarecError, RunError

CONFIG = TrainingConfig(env_steps=200, checkpoint_every=30, keep_checkpoints=2)


def run(folder: Path, trainer: Any, config: TrainingConfig = CONFIG) -> TrainingResult:
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    run_folder = RunFolder(folder)
    checkpoint = latest_checkpoint(run_folder.checkpoints, print)
    stop = Stop(print)
    loop = iterations(
        config,
        run_folder,
        trainer,
        checkpoint=checkpoint,
        trackers=Trackers({}, print),
        progress=ProgressDisplay(config.env_steps, 0, Console(quiet=True)),
        stop=stop,
    )
    (result,) = in_turn([loop], stop)
    if isinstance(result, MarecError):
        raise result
    return result


def curves(folder: Path) -> list[dict[str, float | None]]:
    return [
        {key: value for key, value in row.items() if not key.startswith(TIME_PREFIX)}
        for row in read_metrics(folder / "metrics.jsonl")
    ]


def test_trains_the_budget_and_keeps_the_newest_checkpoints(
    tmp_path: Path, make_trainer: Any
) -> None:
    outcome = run(tmp_path, make_trainer())
    assert not outcome.interrupted
    rows = curves(tmp_path)
    assert [row["env_steps"] for row in rows] == list(range(10, 201, 10))
    assert rows[0]["episode/clicks"] is None
    assert rows[2]["episode/clicks"] == 2.5
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["env_steps-000000000180", "env_steps-000000000200"]


def test_a_run_that_failed_continues_with_equal_metrics(tmp_path: Path, make_trainer: Any) -> None:
    run(tmp_path / "whole", make_trainer())

    def fail(iteration: int) -> None:
        if iteration == 14:
            raise MemoryError

    broken = make_trainer()
    broken.on_iterate = fail
    with pytest.raises(MemoryError):
        run(tmp_path / "cut", broken)
    assert len(curves(tmp_path / "cut")) == 13
    # A crash in the middle of writing leaves a line without its end.
    with open(tmp_path / "cut" / "metrics.jsonl", "a") as stream:
        stream.write('{"env_steps": 140, "agent')
    resumed = make_trainer()
    run(tmp_path / "cut", resumed)
    assert resumed.iterations == 20
    assert curves(tmp_path / "cut") == curves(tmp_path / "whole")


def test_before_the_first_checkpoint_a_run_begins_anew(tmp_path: Path, make_trainer: Any) -> None:
    def fail(iteration: int) -> None:
        if iteration == 3:
            raise MemoryError

    broken = make_trainer()
    broken.on_iterate = fail
    with pytest.raises(MemoryError):
        run(tmp_path / "cut", broken)
    run(tmp_path / "cut", make_trainer())
    run(tmp_path / "whole", make_trainer())
    assert curves(tmp_path / "cut") == curves(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_iteration_and_writes_a_checkpoint(
    tmp_path: Path, make_trainer: Any, number: signal.Signals
) -> None:
    trainer = make_trainer()
    trainer.on_iterate = lambda i: os.kill(os.getpid(), number) if i == 5 else None
    before = signal.getsignal(number)
    outcome = run(tmp_path / "cut", trainer)
    assert signal.getsignal(number) is before
    assert outcome.interrupted
    assert outcome.checkpoint is not None
    assert outcome.checkpoint.name == "env_steps-000000000050"
    run(tmp_path / "cut", make_trainer())
    run(tmp_path / "whole", make_trainer())
    assert curves(tmp_path / "cut") == curves(tmp_path / "whole")


def test_a_second_signal_stops_at_once(tmp_path: Path, make_trainer: Any) -> None:
    def twice(iteration: int) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    trainer = make_trainer()
    trainer.on_iterate = twice
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, trainer)


@pytest.mark.parametrize("name", ["team_reward", "reward/recall_0", "value_loss/critic"])
def test_a_run_that_has_diverged_stops_and_keeps_what_was_good(
    tmp_path: Path, make_trainer: Any, name: str
) -> None:
    trainer = make_trainer()
    iterate = trainer.iterate

    def diverge() -> dict[str, float]:
        metrics = iterate()
        return metrics | ({name: float("nan")} if metrics["env_steps"] == 70 else {})

    trainer.iterate = diverge
    with pytest.raises(RunError, match=f"training diverged: {name} is nan after 70 env steps"):
        run(tmp_path, trainer)
    kept = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert kept == ["env_steps-000000000030", "env_steps-000000000060"]


def test_time_goes_on_over_a_resume(tmp_path: Path, make_trainer: Any) -> None:
    run(tmp_path, make_trainer())
    first = read_metrics(tmp_path / "metrics.jsonl")[-1]["time/elapsed_seconds"]
    run(tmp_path, make_trainer(), TrainingConfig(env_steps=210, checkpoint_every=30))
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert len(rows) == 21
    assert first is not None
    assert rows[-1]["time/elapsed_seconds"] > first


def test_a_checkpoint_of_another_trainer_is_an_error_a_user_can_read(
    tmp_path: Path, make_trainer: Any
) -> None:
    run(tmp_path, make_trainer())
    other = make_trainer()

    def refuse(folder: Path) -> None:
        raise RuntimeError("size mismatch for\n layer 1")

    other.restore = refuse
    with pytest.raises(RunError, match=r"size mismatch for layer 1\); resume with the version"):
        run(tmp_path, other)


SCRIPT = """
import sys, time
from pathlib import Path
sys.path[:0] = [{tests!r}]
from conftest import ToyTrainer
from test_train_loop import run
trainer = ToyTrainer()
trainer.on_iterate = lambda iteration: iteration <= {done} or time.sleep(1000)
run(Path({folder!r}), trainer)
"""


def test_killed_at_any_moment_it_continues_with_equal_metrics(
    tmp_path: Path, make_trainer: Any
) -> None:
    run(tmp_path / "whole", make_trainer())
    folder = tmp_path / "cut"
    # Before the first checkpoint, at one, and between two; each on top of the one before.
    for done in (2, 6, 11):
        script = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder), done=done)
        process = subprocess.Popen([sys.executable, "-c", script])
        while len(curves(folder)) < done:
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
        process.wait()
    assert len(curves(folder)) == 11
    run(folder, make_trainer())
    assert curves(folder) == curves(tmp_path / "whole")
