"""What the parts of an equilibrium study share, and how they draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from agents.learners.config import AlgorithmConfig
from agents.studies.equilibrium.best_response import SearchPlan
from agents.studies.equilibrium.lineups import Sessions
from marec_env.evaluation.policies import TeamPolicy
from marec_env.evaluation.statistics import Estimate
from marec_env.reporting.charts import Line, lines_figure
from marec_env.reporting.drawing import FONT, Figure, draw
from marec_env.reporting.page import Section

_HELD_OUT_FROM = 1_000_000  # session numbers of the two sets are this far apart


@dataclass(frozen=True, slots=True)
class Settings:
    """Budgets of all parts, saved beside every result; the command has their defaults."""

    train_sessions: int
    held_out_sessions: int
    budget: int
    """Evaluations of each search."""
    seeds: int
    """Search seeds, and seeds of trained responses."""
    response_steps: int
    """Env steps of each trained response; 0 trains none."""
    response_start: Literal["current", "fresh"]
    """``current``: responses start from the component's own policy; ``fresh``: from new weights."""
    checkpoints: int
    """How many of a run's checkpoints show the course of training."""
    widths: tuple[int, ...]
    own_shares: tuple[float, ...]
    rounds: int
    """Of iterated best responses, at most."""
    starts: int
    """From how many points iterated best responses begin: the default decision, the joint optimum
    found, then random ones."""
    per: Literal["session", "request"]
    """How part anarchy counts own objectives: see :class:`~.decisions.PipelineGame`."""

    def train(self) -> Sessions:
        """Return the sessions on which searches compare candidates."""
        return np.arange(self.train_sessions, dtype=np.int64)

    def held_out(self) -> Sessions:
        """Return the sessions on which winners are judged."""
        return _HELD_OUT_FROM + np.arange(self.held_out_sessions, dtype=np.int64)

    def plan(self) -> SearchPlan:
        """Return how searches are run."""
        return SearchPlan(self.train(), self.held_out(), self.budget, tuple(range(self.seeds)))


@dataclass(frozen=True, slots=True)
class Play:
    """A team's play, with a name for the tables."""

    name: str
    policy: TeamPolicy
    algorithm: AlgorithmConfig | None = None
    """What trained it, which then also trains the responses to it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a part found: for the JSON, and for people."""

    record: Mapping[str, Any]
    """What :func:`agents.studies.records.plain` can write."""
    section: Section
    """Its notes are warnings."""


def estimate_lines(
    series: Mapping[str, Sequence[tuple[float, Estimate]]],
    labels: tuple[str, str],
    caption: str,
    reference: float,
    log: str = "",
) -> Figure:
    """Draw named lines of ``(x, estimate)`` points with bars for the intervals."""
    lines = {}
    for name, points in series.items():
        columns: Any = zip(*((x, e.value, e.low, e.high) for x, e in points), strict=True)
        lines[name] = Line(*columns)
    return lines_figure(lines, labels, caption, log=log, band=False, reference=reference)


def heat_map(
    title: str,
    alt: str,
    values: Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    axis_names: tuple[str, str],
    marks: Mapping[tuple[int, ...], str],
    unit: str,
) -> Figure:
    """Draw a matrix with its numbers; ``marks`` are words put below a cell's number."""

    def paint(axes: Any) -> None:
        image = axes.imshow(values, cmap="viridis", aspect="auto")
        flat = [v for row in values for v in row]
        middle = (min(flat) + max(flat)) / 2.0
        for r, row in enumerate(values):
            for c, value in enumerate(row):
                mark = marks.get((r, c), "")
                axes.text(
                    c,
                    r,
                    "\n".join([f"{value:.1f}", *mark.split()]),
                    ha="center",
                    va="center",
                    fontsize=FONT - 3,
                    fontweight="bold" if mark else "normal",
                    color="white" if value < middle else "black",
                )
        axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylabel(axis_names[0])
        axes.set_xlabel(axis_names[1])
        axes.figure.colorbar(image, ax=axes, label=unit)

    return draw(f"{title}. {alt}", alt, 1.2 + 0.45 * len(rows), paint)
