"""Progress on standard error: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from agents.runs.metrics_log import Metrics

__all__ = ["ProgressDisplay", "describe_metrics", "open_progress"]

SHOWN: tuple[tuple[str, str, str], ...] = (
    ("F", "team_reward", ".3f"),
    ("clicks/session", "episode/clicks", ".2f"),
    ("length", "episode/length", ".1f"),
    ("steps/s", "time/env_steps_per_second", ",.0f"),
)
"""Label, metric and format of the numbers shown beside the env steps."""

_PLAIN_EVERY = 5.0  # seconds between plain lines, so that a log of an hour stays readable


def describe_metrics(metrics: Metrics) -> str:
    """Return the shown numbers as ``F 0.231  clicks/session 3.10 ...``."""
    parts = []
    for label, key, style in SHOWN:
        value = metrics.get(key)
        if value is not None:
            parts.append(f"{label} {value:{style}}")
    return "  ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class ProgressDisplay(Protocol):
    """Where a run's progress is shown."""

    def update(self, metrics: Metrics) -> None:
        """Show one iteration."""
        ...

    def say(self, message: str) -> None:
        """Show one line of text."""
        ...

    def __enter__(self) -> ProgressDisplay: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class _Plain:
    """Lines at most every few seconds, and the last one."""

    def __init__(self, console: Console, total: int, start: int, clock: Callable[[], float]):
        self._console = console
        self._total = total
        self._start = start
        self._clock = clock
        self._began = self._shown = clock()
        self._last: Metrics | None = None

    def _line(self, metrics: Metrics) -> str:
        steps = int(metrics["env_steps"] or 0)
        gained = steps - self._start
        elapsed = self._clock() - self._began
        line = f"env_steps {steps:,}/{self._total:,}  {describe_metrics(metrics)}"
        if gained > 0 and steps < self._total:
            line += f"  left {_duration(elapsed * (self._total - steps) / gained)}"
        return line

    def update(self, metrics: Metrics) -> None:
        self._last = metrics
        if self._clock() - self._shown >= _PLAIN_EVERY:
            self._flush()

    def _flush(self) -> None:
        if self._last is not None:
            self.say(self._line(self._last))
            self._shown = self._clock()
            self._last = None

    def say(self, message: str) -> None:
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> _Plain:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._flush()


class _Live:
    """One line that changes in place."""

    def __init__(self, console: Console, total: int, start: int) -> None:
        self._progress = Progress(
            TextColumn("env_steps {task.completed:,.0f}/{task.total:,.0f}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[numbers]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("train", total=total, completed=start, numbers="")

    def update(self, metrics: Metrics) -> None:
        self._progress.update(
            self._task,
            completed=int(metrics["env_steps"] or 0),
            numbers=describe_metrics(metrics),
        )

    def say(self, message: str) -> None:
        self._progress.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> _Live:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()


def open_progress(total: int, start: int, console: Console | None = None) -> ProgressDisplay:
    """Return a display for this terminal or log.

    Args:
        total: the run's budget in env steps.
        start: where a resumed run stands.
        console: by default standard error.
    """
    console = console or Console(stderr=True)
    if console.is_terminal:
        return _Live(console, total, start)
    return _Plain(console, total, start, time.monotonic)
