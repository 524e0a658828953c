"""Progress on standard error: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from agents.runs.metrics_log import Metrics
from marec_env.reporting.terminal import Terminal

__all__ = ["ProgressDisplay", "describe_metrics"]

SHOWN: tuple[tuple[str, str, str], ...] = (
    ("F/request", "team_reward", ".3f"),
    ("clicks/session", "episode/clicks", ".2f"),
    ("length", "episode/length", ".1f"),
    ("steps/s", "time/env_steps_per_second", ",.0f"),
)
"""Label, metric and format of the numbers shown beside the env steps."""

_PLAIN_EVERY = 5.0  # seconds between plain lines, so that a log of an hour stays readable


def describe_metrics(metrics: Metrics) -> str:
    """Return the shown numbers as ``F/request 0.231  clicks/session 3.10 ...``."""
    found = [(label, metrics.get(key), style) for label, key, style in SHOWN]
    return "  ".join(
        f"{label} {value:{style}}" for label, value, style in found if value is not None
    )


class ProgressDisplay:
    """Where a run's progress is shown, while it is entered."""

    def __init__(
        self,
        total: int,
        start: int,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Show a run of ``total`` env steps that goes on from ``start``, by default on stderr."""
        self._console = console or Terminal(stderr=True)
        self._total, self._start, self._clock = total, start, clock
        self._began = self._shown = clock()
        self._last: Metrics | None = None
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("env_steps {task.completed:,.0f}/{task.total:,.0f}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[numbers]}"),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("train", total=total, completed=start, numbers="")

    def update(self, metrics: Metrics) -> None:
        """Show one iteration: in place, or as a line every few seconds and at the end."""
        if self._bar is not None:
            done = int(metrics["env_steps"] or 0)
            self._bar.update(self._task, completed=done, numbers=describe_metrics(metrics))
            return
        self._last = metrics
        if self._clock() - self._shown >= _PLAIN_EVERY:
            self._flush()

    def say(self, message: str) -> None:
        """Show one line of text."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def _flush(self) -> None:
        if self._last is None:
            return
        steps = int(self._last["env_steps"] or 0)
        line = f"env_steps {steps:,}/{self._total:,}  {describe_metrics(self._last)}"
        if self._start < steps < self._total:
            elapsed = self._clock() - self._began
            left = round(elapsed * (self._total - steps) / (steps - self._start))
            hours, minutes, seconds = left // 3600, left // 60 % 60, left % 60
            line += f"  left {f'{hours}:{minutes:02d}' if hours else minutes}:{seconds:02d}"
        self.say(line)
        self._last, self._shown = None, self._clock()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        if self._bar is not None:
            self._bar.stop()
