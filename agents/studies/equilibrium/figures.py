"""Figures of the studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marec_env.evaluation.statistics import Estimate
from marec_env.reporting.drawing import (
    FONT,
    MARKERS,
    Figure,
    color_of,
    draw,
    legend_above,
    legend_height,
)

__all__ = ["bars", "heat_map", "lines"]

_HEIGHT = 3.0  # inches


def lines(
    title: str,
    alt: str,
    series: Mapping[str, Sequence[tuple[float, Estimate]]],
    xlabel: str,
    ylabel: str,
    log_x: bool = False,
    reference: float | None = None,
) -> Figure:
    """Draw named lines of ``(x, interval)`` points with bars for the intervals."""

    def paint(axes: Any) -> None:
        for number, (name, points) in enumerate(series.items()):
            xs = [x for x, _ in points]
            ys = [i.value for _, i in points]
            errors = [
                [max(i.value - i.low, 0.0) for _, i in points],
                [max(i.high - i.value, 0.0) for _, i in points],
            ]
            axes.errorbar(
                xs,
                ys,
                yerr=errors,
                label=name,
                color=color_of(number),
                marker=MARKERS[number % len(MARKERS)],
                markersize=4,
                capsize=2,
                linewidth=1.2,
            )
        if log_x:
            axes.set_xscale("log")
            ticks = sorted({x for points in series.values() for x, _ in points})
            axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
            axes.minorticks_off()
        if reference is not None:
            axes.axhline(reference, color="#888888", linewidth=0.8, linestyle="--")
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.grid(alpha=0.25)
        legend_above(axes, len(series))

    return draw(f"{title}. {alt}", alt, _HEIGHT + legend_height(series), paint)


def bars(
    title: str,
    alt: str,
    groups: Sequence[str],
    series: Mapping[str, Sequence[Estimate]],
    ylabel: str,
) -> Figure:
    """Draw grouped bars, one group a name, one bar a series."""

    def paint(axes: Any) -> None:
        width = 0.8 / len(series)
        for number, (name, intervals) in enumerate(series.items()):
            axes.bar(
                [g + (number - (len(series) - 1) / 2) * width for g in range(len(groups))],
                [i.value for i in intervals],
                width,
                label=name,
                color=color_of(number),
                yerr=[
                    [max(i.value - i.low, 0.0) for i in intervals],
                    [max(i.high - i.value, 0.0) for i in intervals],
                ],
                capsize=2,
                error_kw={"linewidth": 0.8},
            )
        axes.set_xticks(range(len(groups)), groups)
        axes.axhline(0.0, color="#444444", linewidth=0.8)
        axes.set_ylabel(ylabel)
        axes.grid(axis="y", alpha=0.25)
        legend_above(axes, len(series))

    return draw(f"{title}. {alt}", alt, _HEIGHT + legend_height(series), paint)


def heat_map(
    title: str,
    alt: str,
    values: Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    row_name: str,
    column_name: str,
    marks: Mapping[tuple[int, int], str],
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
