"""The kinds of figures, as SVG and in words: lines, bars and dots by row with intervals; steps."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from marec_env.errors import visible
from marec_env.reporting.drawing import (
    FONT,
    INK,
    LINE,
    MARKERS,
    PALETTE,
    Figure,
    color_of,
    draw,
    interval,
    legend_above,
    line_count,
    sentence,
    shown,
    wrapped,
)

if TYPE_CHECKING:
    from marec_env.evaluation.statistics import Estimate

_MOST_POINTS = 120  # of a line; more cannot be told apart at this width
_MOST_MARKED = 12  # points that are all marked, and told in words
_BAND_ALPHA, _SEED_ALPHA = 0.2, 0.35
_LABEL = 40  # characters of an axis' name before it wraps


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a figure over ``M`` points; NaN where it has none."""

    x: ArrayLike
    """``[M]``."""
    y: ArrayLike
    """``[M]``."""
    low: ArrayLike | None = None
    """``[M]``: lower end of the interval."""
    high: ArrayLike | None = None
    """``[M]``."""
    seeds: ArrayLike = ()
    """``[R, M]``: thin lines beside it, one a seed."""
    style: str = ""
    """A line style of matplotlib; by default solid, and dashed once colours repeat."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A value with its interval."""

    label: str
    estimate: Estimate
    color: str


def lines_figure(
    lines: Mapping[str, Line],
    labels: tuple[str, str],
    caption: str,
    *,
    alt: str | None = None,
    ticks: Sequence[str] = (),
    log: str = "",
    marked: bool = True,
    band: bool = True,
    steps: str = "default",
    span: tuple[float | None, float | None] = (None, None),
    reference: float | None = None,
) -> Figure:
    """Draw lines.

    Args:
        lines: by name.
        labels: of the two axes.
        caption: below the figure.
        alt: what it shows in words; by default the points of short lines, the ends of long ones.
        ticks: names of the places 0, 1, ...; by default x is a number.
        log: the axes on a logarithmic scale: ``x``, ``y`` or ``xy``.
        marked: whether points have markers.
        band: whether intervals are a band, not a bar at each point.
        steps: how points are joined: ``default``, ``steps-pre`` or ``steps-post``.
        span: lowest and highest y.
        reference: a y to mark.
    """

    def paint(axes: Any) -> None:
        for number, (name, line) in enumerate(lines.items()):
            x, y = _floats(line.x), _floats(line.y)
            there = _thin(np.flatnonzero(np.isfinite(y) & ((y > 0) | ("y" not in log))))
            color = color_of(number)
            for seed in np.asarray(line.seeds, dtype=np.float64):
                axes.plot(x[there], seed[there], color=color, alpha=_SEED_ALPHA, linewidth=0.5)
            if line.low is not None and line.high is not None:
                low, high = _floats(line.low)[there], _floats(line.high)[there]
                if band:
                    step = {"step": steps.removeprefix("steps-")} if "-" in steps else {}
                    axes.fill_between(
                        x[there], low, high, alpha=_BAND_ALPHA, color=color, linewidth=0, **step
                    )
                else:
                    axes.vlines(x[there], low, high, color=color, linewidth=1.0)
            axes.plot(
                x[there],
                y[there],
                label=wrapped(name),
                color=color,
                linestyle=line.style or ("-" if number < len(PALETTE) else "--"),
                drawstyle=steps,
                marker=MARKERS[number % len(MARKERS)] if marked else None,
                markevery=max(1, there.size // 6) if there.size > _MOST_MARKED else 1,
                markersize=4,
            )
        for axis in log:
            getattr(axes, f"set_{axis}scale")("log")
        if "y" in log:
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        if ticks:
            axes.set_xticks(range(len(ticks)), [wrapped(tick, 11) for tick in ticks])
        else:
            axes.xaxis.set_major_formatter(_thousands)
        if reference is not None:
            axes.axhline(reference, color="#555555", linewidth=0.9, linestyle=":")
        axes.set_ylim(*span)
        axes.set_xlabel(wrapped(labels[0], _LABEL))
        axes.set_ylabel(wrapped(labels[1], 34))
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
        legend_above(axes, lines)

    told = f"{sentence(labels[1])}. {'; '.join(_told(n, v, ticks) for n, v in lines.items())}."
    return draw(caption, told if alt is None else alt, 3.2 if ticks else 3.0, paint)


def bars_figure(title: str, bars: Sequence[Bar], caption: str) -> Figure:
    """Draw horizontal bars with their intervals and numbers, first bar on top."""
    ends = [(bar.estimate.value, bar.estimate.low, bar.estimate.high) for bar in bars]
    low_end, high_end = min(0.0, float(np.nanmin(ends))), max(0.0, float(np.nanmax(ends)))
    span = (high_end - low_end) or 1.0

    def paint(axes: Any) -> None:
        for place, bar in enumerate(bars):
            found = bar.estimate
            axes.barh(place, found.value, color=bar.color, height=0.7, alpha=0.85)
            if math.isfinite(found.low):
                axes.hlines(place, found.low, found.high, color=INK, linewidth=1.4, zorder=3)
            right = max(0.0, float(np.nanmax(ends[place]))) + 0.02 * span
            number = interval(found).partition(" ")[0]  # rounded as beside its interval
            axes.text(right, place, number, va="center", fontsize=FONT - 1)
        _rows(axes, [bar.label for bar in bars])
        axes.set_xlim(low_end - (0.03 * span if low_end < 0 else 0.0), high_end + 0.2 * span)
        axes.set_xlabel(wrapped(title, _LABEL))

    tallest = max(line_count(bar.label) for bar in bars)  # rows are evenly spaced
    height = 0.75 + len(bars) * max(0.32, 0.08 + LINE * tallest)
    told = "; ".join(f"{bar.label} {interval(bar.estimate)}" for bar in bars)
    return draw(caption, f"Bars of {title}: {told}.", height, paint)


def groups_figure(title: str, rows: Mapping[str, Mapping[str, Estimate]], caption: str) -> Figure:
    """Draw a quantity's dots with intervals: ``rows`` by row, then by part."""
    names = list(dict.fromkeys(name for found in rows.values() for name in found))

    def paint(axes: Any) -> None:
        spread = 0.6 / max(len(names), 1)
        for number, name in enumerate(names):
            kept = [
                (found[name], place + (number - (len(names) - 1) / 2) * spread)
                for place, found in enumerate(rows.values())
                if name in found and math.isfinite(found[name].value)
            ]
            color, heights = color_of(number), [height for _, height in kept]
            axes.hlines(heights, [e.low for e, _ in kept], [e.high for e, _ in kept], color=color)
            axes.plot(
                [e.value for e, _ in kept],
                heights,
                MARKERS[number % len(MARKERS)],
                color=color,
                markersize=5,
                label=wrapped(name),
            )
        for place in range(1, len(rows)):
            axes.axhline(place - 0.5, color="#dddddd", linewidth=0.7)
        _rows(axes, list(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(wrapped(title, _LABEL))
        legend_above(axes, names)

    told = "; ".join(
        f"{row}: " + ", ".join(f"{name} {shown(e.value)}" for name, e in found.items())
        for row, found in rows.items()
    )
    height = 1.0 + max(0.45, 0.17 * len(names)) * len(rows)
    return draw(caption, f"{sentence(title)}. {told}.", height, paint)


def _rows(axes: Any, labels: Sequence[str]) -> None:
    """Name rows, the first on top."""
    axes.set_yticks(range(len(labels)), [wrapped(label) for label in labels])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)


def _floats(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


def _thin(places: NDArray[np.int64]) -> NDArray[np.int64]:
    kept = np.linspace(0, places.size - 1, min(places.size, _MOST_POINTS)).round()
    return places[np.unique(kept.astype(np.int64))]


def _thousands(value: float, _: int) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def _told(name: str, line: Line, ticks: Sequence[str]) -> str:
    """Return a line's points in words; of many, the last."""
    x, y = _floats(line.x), _floats(line.y)
    there = np.flatnonzero(np.isfinite(y))
    if not 0 < there.size <= _MOST_MARKED:
        return f"{name}, at the end {shown(y[there[-1]])}" if there.size else name
    places = ticks or [shown(value) for value in x]
    return f"{name}: " + ", ".join(f"{places[k]} {shown(y[k])}" for k in there.tolist())


_BAR, _WIDEST = 0.36, 0.36  # where bars begin, and the length of the longest
_CHARACTERS = 46  # of a line, at this width and size


@dataclass(frozen=True, slots=True)
class Rung:
    """One line of the picture."""

    text: str
    share: float | None = None
    """Length of its bar, of the longest; ``None`` for no bar."""
    note: str = ""
    """Behind the bar or, without one, at the right."""
    color: str = ""
    """Of the bar, or of a mark before the text; without either the line is a heading."""


def ladder_figure(rungs: Sequence[Rung], caption: str) -> Figure:
    """Draw lines from top to bottom; what has no room is cut, and whole in the words beside it."""

    def paint(axes: Any) -> None:
        for place, rung in enumerate(rungs):
            heading = not rung.color
            room = _CHARACTERS - len(rung.note) if rung.share is None else 17
            text = textwrap.shorten(visible(rung.text), room, placeholder="…") or "…"
            left = 0.0 if heading or rung.share is not None else 0.04
            weight = "bold" if heading else "normal"
            style = {"va": "center", "fontsize": FONT - 1, "color": INK, "weight": weight}
            axes.text(left, place, text, **style)
            if rung.share is not None:
                length = _WIDEST * rung.share
                axes.barh(place, length, left=_BAR, color=rung.color, height=0.7)
                axes.text(_BAR + length + 0.02, place, visible(rung.note), **style)
                continue
            if not heading:
                axes.plot([0.015], [place], "s", color=rung.color, markersize=6)
            axes.text(1.0, place, visible(rung.note), ha="right", **style)
        axes.set_xlim(0.0, 1.0)
        axes.set_ylim(len(rungs) - 0.4, -0.6)
        axes.set_axis_off()

    told = "; ".join(f"{rung.text} {rung.note}".strip() for rung in rungs)
    return draw(caption, f"{told}.", 0.2 + LINE * len(rungs), paint)
