"""The loop that trains: iterate, write down, checkpoint, stop when asked.

It holds no state that a checkpoint does not, so that a run continued from a checkpoint repeats the
uninterrupted one.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from agents.config import TrainingConfig
from agents.runs.checkpoints import Checkpoint, Progress, save_checkpoint
from agents.runs.folder import RunFolder
from agents.runs.metrics_log import (
    TIME_PREFIX,
    Metrics,
    append_metrics,
    read_metrics,
    restore_metrics,
)
from agents.runs.progress import ProgressDisplay
from agents.runs.tracking import Trackers
from marec_env.errors import MarecError, RunError

if TYPE_CHECKING:
    from agents.learners.trainer import Trainer

INTERRUPTED = 130
"""Exit code of a run stopped by a signal, as shells report Ctrl-C (128 + SIGINT)."""

_DECISIVE = ("team_reward", "reward/", "value_loss/")
"""Metrics without which nothing can be learned."""


@contextmanager
def on_signals(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let ``handle`` answer Ctrl-C and termination while this is entered."""
    previous = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@dataclass(frozen=True, slots=True)
class Watch:
    """How a team is evaluated while it trains."""

    every: int
    """Env steps."""
    evaluate: Callable[[], dict[str, float]]
    """Returns metrics."""
    best: str
    """The metric of which more is better."""

    def is_best(self, folder: RunFolder, metrics: Metrics) -> bool:
        """Return whether an evaluation is better than all before it."""
        found = [row.get(self.best) for row in read_metrics(folder.metrics)]
        value = metrics[self.best]
        return value is not None and all(value > one for one in found if one is not None)


def _crossed(at: Progress, last: Progress, every: int) -> bool:
    """Return whether a multiple of ``every`` env steps has been reached since."""
    return at.env_steps // every > last.env_steps // every


class Stop:
    """Whether to end training: the first signal asks to, a second one stops at once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Args:
        say: tells the user.
        """
        self.now = False
        """As of the present iteration, so that all who iterate in step stop after the same one."""
        self._asked = False
        self._say = say

    def answer(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        self._say("stopping after this iteration; once more to stop without a checkpoint")

    def look(self) -> None:
        """Let what was asked for so far count from now on."""
        self.now = self._asked


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """How a run ended."""

    checkpoint: Path | None
    interrupted: bool


def _restore(trainer: Trainer, checkpoint: Checkpoint) -> None:
    try:
        trainer.restore(checkpoint.trainer)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"{checkpoint.folder}: does not fit this version or configuration "
            f"({type(error).__name__}: {reason}); resume with the version that wrote it"
        ) from error


def _refuse_divergence(metrics: Metrics, env_steps: int) -> None:
    """Stop a run whose rewards or values are no numbers any more: it would train on in vain.

    Raises:
        RunError: names the first of them.
    """
    for name, value in metrics.items():
        if name.startswith(_DECISIVE) and value is not None and not math.isfinite(value):
            raise RunError(
                f"training diverged: {name} is {value} after {env_steps:,} env steps; look at "
                "rewards and observations, or lower algorithm.learning_rate (the last checkpoint "
                "is from before)"
            )


def in_turn(runs: Sequence[Iterator[None]], stop: Stop) -> list[TrainingResult | MarecError]:
    """Advance runs by an iteration each, over and over, until each has ended; a signal stops all.

    Args:
        runs: as :func:`iterations` returns them.
        stop: what the runs look at.

    Returns:
        how each ended; its error where it failed, which the others survive.
    """
    ended: dict[int, TrainingResult | MarecError] = {}
    with on_signals(stop.answer):
        while len(ended) < len(runs):
            stop.look()
            for place, run in enumerate(runs):
                if place in ended:
                    continue
                try:
                    next(run)
                except StopIteration as end:
                    ended[place] = end.value
                except MarecError as error:
                    ended[place] = error
    return [ended[place] for place in range(len(runs))]


def iterations(
    config: TrainingConfig, folder: RunFolder, trainer: Trainer, *, checkpoint: Checkpoint | None,
    trackers: Trackers, progress: ProgressDisplay, stop: Stop, watch: Watch | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[None, None, TrainingResult]:  # fmt: skip
    """Train, yielding after each iteration, until the budget of env steps is spent or it is to
    stop.

    The folder is held by this process; the trainer is fresh, and restored here if there is a
    checkpoint; ``stop`` is looked at before each iteration; ``watch`` evaluates the team as it
    trains; the clock gives seconds.

    Raises:
        RunError: the disk is full, or the checkpoint does not fit the trainer.
    """
    at = checkpoint.progress if checkpoint else Progress(0, 0, 0.0)
    if checkpoint:
        _restore(trainer, checkpoint)
    copy = checkpoint.metrics if checkpoint else None
    if told := restore_metrics(folder.metrics, at.iterations, copy):
        progress.say(told)
    began = clock() - at.seconds
    before = clock()
    metrics: dict[str, float] = {}
    saved = checkpoint.folder if checkpoint else None

    def save() -> Path:
        return save_checkpoint(folder.checkpoints, trainer.save, at, config.keep_checkpoints)

    while at.env_steps < config.env_steps and not stop.now:
        metrics = trainer.iterate()
        now = clock()
        last = at
        at = Progress(int(metrics["env_steps"]), int(metrics["iterations"]), now - began)
        metrics[f"{TIME_PREFIX}elapsed_seconds"] = at.seconds
        metrics[f"{TIME_PREFIX}env_steps_per_second"] = (at.env_steps - last.env_steps) / max(
            now - before, 1e-9
        )
        if watch is not None and _crossed(at, last, watch.every):
            metrics |= watch.evaluate()
            if watch.is_best(folder, metrics):
                save_checkpoint(folder.best, trainer.save, at, keep=1)
        before = clock()
        append_metrics(folder.metrics, metrics)
        trackers.log(metrics)
        progress.update(metrics)
        _refuse_divergence(metrics, at.env_steps)
        if _crossed(at, last, config.checkpoint_every):
            saved = save()
        yield
    if metrics:
        saved = save()
    return TrainingResult(saved, interrupted=stop.now and at.env_steps < config.env_steps)
