"""Progress on standard error: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from agents.runs.metrics_log import Metrics, last_metrics
from marec_env.reporting.terminal import Terminal

SHOWN: tuple[tuple[str, str, str], ...] = (
    ("F/request", "team_reward", ".3f"),
    ("clicks/session", "episode/clicks", ".2f"),
    ("length", "episode/length", ".1f"),
    ("steps/s", "time/env_steps_per_second", ",.0f"),
)
"""Label, metric and format of the numbers shown beside the env steps."""

_PLAIN_EVERY = 5.0  # seconds between plain lines, so that a log of an hour stays readable
_SET_EVERY = 30.0  # the same of several runs, whose lines are long
_AROUND = 7  # lines of a terminal that a table of runs leaves to its frame and to what stands above


def describe_metrics(metrics: Metrics) -> str:
    """Return the shown numbers as ``F/request 0.231  clicks/session 3.10 ...``."""
    found = [(label, metrics.get(key), style) for label, key, style in SHOWN]
    return "  ".join(
        f"{label} {value:{style}}" for label, value, style in found if value is not None
    )


def _duration(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{f'{hours}:{minutes:02d}' if hours else minutes}:{whole % 60:02d}"


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
            left = elapsed * (self._total - steps) / (steps - self._start)
            line += f"  left {_duration(left)}"
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


State = Literal["waiting", "preparing", "training", "comparing", "done", "stopped", "failed"]
_COUNTED: tuple[State, ...] = ("stopped", "failed", "preparing", "comparing")
_FIRST = ("failed", "stopped", "comparing", "training", "preparing", "waiting", "done")
"""Which runs are shown where a terminal has no room for all."""


@dataclass(eq=False)
class Progressing:
    """How far one of several runs is, as its folder tells."""

    place: Path
    total: int
    """Env steps."""
    state: State = "waiting"
    metrics: Metrics = field(default_factory=dict)
    """Of the last iteration."""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.place.name

    def look(self) -> None:
        """Read how far it is."""
        if self.state in ("preparing", "training") and (
            found := last_metrics(self.place / "metrics.jsonl")
        ):
            self.metrics = found
            self.state = "training" if self._steps < self.total else "comparing"

    def end(self, state: State) -> None:
        """Take how it ended."""
        self.look()
        self.state = state

    @property
    def _steps(self) -> int:
        return int(self.metrics.get("env_steps") or 0)

    def cells(self) -> list[str]:
        """Return name, state, env steps, F a request, env steps a second, time left."""
        reward, elapsed = self.metrics.get("team_reward"), self.metrics.get("time/elapsed_seconds")
        rate = self._steps / elapsed if elapsed else None
        going = rate and self.state == "training"
        return [
            self.name,
            self.state,
            f"{self._steps:,}/{self.total:,}",
            "" if reward is None else f"{reward:.3f}",
            f"{rate:,.0f}" if rate else "",
            _duration((self.total - self._steps) / rate) if rate and going else "",
        ]


class SetDisplay:
    """Where the progress of several runs is shown, while it is entered: a table, a row a run; where
    there is no terminal, a line every half minute and one for each end.
    """

    def __init__(
        self,
        runs: Sequence[Progressing],
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Show runs, by default on stderr."""
        self._runs, self._clock = runs, clock
        self._console = console or Terminal(stderr=True)
        self._shown = clock()
        self._said: set[str] = set()
        self._ended: list[Progressing] = []
        self._live = (
            Live(console=self._console, get_renderable=self._table, refresh_per_second=2)
            if self._console.is_terminal
            else None
        )

    def say(self, message: str) -> None:
        """Show one line of text."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def say_once(self, message: str) -> None:
        """Show a line unless it has been shown."""
        if message not in self._said:
            self._said.add(message)
            self.say(message)

    def update(self) -> None:
        """Look at all runs, and show them."""
        for run in self._runs:
            run.look()
            if run.state in ("done", "stopped", "failed") and run not in self._ended:
                self._ended.append(run)
                if self._live is None:
                    self.say(f"{run.state}: {run.name} ({self._count()})")
        if self._live is None and self._clock() - self._shown >= _SET_EVERY:
            self._shown = self._clock()
            going = [run.cells() for run in self._runs if run.state == "training"]
            parts = [
                f"{name} {steps}, F/request {reward}, {rate} steps/s, {left or '0:00'} left"
                for name, _, steps, reward, rate, left in going
            ]
            self.say("; ".join([self._count(), *parts]))

    def _count(self) -> str:
        counts = Counter(run.state for run in self._runs)
        others = [f"{counts[state]} {state}" for state in _COUNTED if counts[state]]
        return ", ".join([f"{counts['done']} of {len(self._runs)} done", *others])

    def _table(self) -> Table:
        room = max(1, self._console.height - _AROUND)
        shown = list(self._runs)
        if len(shown) > room:
            kept = sorted(shown, key=lambda run: _FIRST.index(run.state))[:room]
            shown = [run for run in shown if run in kept]
        table = Table(caption=self._count(), caption_justify="left")
        table.add_column("run", overflow="fold")
        table.add_column("")
        for title in ("env steps", "F/request", "steps/s", "left"):
            table.add_column(title, justify="right", no_wrap=True)
        for run in shown:
            table.add_row(*run.cells())
        return table

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.update()
        if self._live is not None:
            self._live.stop()
