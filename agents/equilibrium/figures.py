"""Figures as SVG text, with words for readers who do not see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents.equilibrium.intervals import Interval
from marec_env.evaluation.drawing import MARKERS, PALETTE, svg_of

__all__ = ["PALETTE", "Figure", "bars", "draw", "heat_map", "lines"]

SIZE = (6.4, 3.6)  # inches; 460 points wide fits a phone and a printed column


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing."""

    title: str
    alt: str
    """What it shows, in a sentence."""
    svg: str


def draw(
    title: str, alt: str, paint: Callable[[Any], None], size: tuple[float, float] = SIZE
) -> Figure:
    """Return what ``paint`` draws into a matplotlib axes, reproducibly."""
    svg = svg_of(paint, size, {"svg.hashsalt": "marec", "font.size": 9})
    return Figure(title, alt, svg)


def lines(
    title: str,
    alt: str,
    series: Mapping[str, Sequence[tuple[float, Interval]]],
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
                color=PALETTE[number % len(PALETTE)],
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
        axes.legend(frameon=False, fontsize=8)

    return draw(title, alt, paint)


def bars(
    title: str,
    alt: str,
    groups: Sequence[str],
    series: Mapping[str, Sequence[Interval]],
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
                color=PALETTE[number % len(PALETTE)],
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
        axes.legend(frameon=False, fontsize=8)

    return draw(title, alt, paint)


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
    """Draw a matrix with its numbers; ``marks`` are short texts put below a cell's number."""

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
                    f"{value:.1f}" + (f"\n{mark}" if mark else ""),
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    fontweight="bold" if mark else "normal",
                    color="white" if value < middle else "black",
                )
        axes.set_xticks(range(len(columns)), columns, rotation=20, ha="right")
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xlabel(column_name)
        axes.set_ylabel(row_name)
        axes.figure.colorbar(image, ax=axes, label=bar_name)

    return draw(title, alt, paint, (7.2, 0.9 + 0.5 * len(rows)))
