"""Figures of the parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marec_env.evaluation.statistics import Estimate
from marec_env.reporting.charts import Line, lines_figure
from marec_env.reporting.drawing import FONT, Figure, draw

__all__ = ["estimate_lines", "heat_map"]


def estimate_lines(
    series: Mapping[str, Sequence[tuple[float, Estimate]]],
    labels: tuple[str, str],
    caption: str,
    reference: float,
    log: str = "",
) -> Figure:
    """Draw named lines of ``(x, estimate)`` points with bars for the intervals."""
    lines = {
        name: Line(
            [x for x, _ in points],
            [e.value for _, e in points],
            [e.low for _, e in points],
            [e.high for _, e in points],
        )
        for name, points in series.items()
    }
    return lines_figure(lines, labels, caption, log=log, band=False, reference=reference)


def heat_map(
    title: str,
    alt: str,
    values: Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    row_name: str,
    column_name: str,
    marks: Mapping[tuple[int, ...], str],
    bar_name: str,
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
        axes.set_xlabel(column_name)
        axes.set_ylabel(row_name)
        axes.figure.colorbar(image, ax=axes, label=bar_name)

    return draw(f"{title}. {alt}", alt, 1.2 + 0.45 * len(rows), paint)
