"""Figures of a comparison as SVG text, with words for readers who do not see them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marec_env.evaluation.statistics import FEWEST_TO_RESAMPLE, Estimate
from marec_env.reporting.drawing import (
    FONT,
    LINE,
    MARKERS,
    PALETTE,
    Figure,
    color_of,
    draw,
    legend_above,
    legend_height,
    line_count,
    sentence,
    shown,
    wrapped,
)

__all__ = [
    "Bar",
    "Curve",
    "bars_figure",
    "curves_figure",
    "groups_figure",
    "lines_figure",
    "steps_figure",
]

_MOST_POINTS = 120  # of a curve; more cannot be told apart at this width
_BAND_ALPHA, _SEED_ALPHA = 0.2, 0.35


@dataclass(frozen=True, slots=True)
class Curve:
    """A quantity over env steps."""

    steps: NDArray[np.float64]
    """``[M]``."""
    seeds: NDArray[np.float64]
    """``[R, M]``: one row a seed."""
    middle: NDArray[np.float64]
    """``[M]``."""
    low: NDArray[np.float64]
    """``[M]``: lower end of the band."""
    high: NDArray[np.float64]
    """``[M]``."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A value with its interval."""

    label: str
    estimate: Estimate
    color: str


def curves_figure(curves: Mapping[str, Curve], quantity: str) -> Figure:
    """Draw a quantity while training: middle and band of each experiment, its seeds faintly."""

    def paint(axes: Any) -> None:
        for number, (name, curve) in enumerate(curves.items()):
            kept = _thin(curve.steps.size)
            color = color_of(number)
            if len(curve.seeds) > 1:
                for seed in curve.seeds:
                    axes.plot(
                        curve.steps[kept], seed[kept], color=color, alpha=_SEED_ALPHA, linewidth=0.5
                    )
                axes.fill_between(
                    curve.steps[kept],
                    curve.low[kept],
                    curve.high[kept],
                    alpha=_BAND_ALPHA,
                    color=color,
                    linewidth=0,
                )
            axes.plot(
                curve.steps[kept],
                curve.middle[kept],
                label=wrapped(name),
                color=color,
                marker=MARKERS[number % len(MARKERS)],
                markevery=max(1, kept.size // 6),
                markersize=4,
            )
        axes.set_xlabel("env steps (requests trained on)")
        axes.xaxis.set_major_formatter(_thousands())
        axes.set_ylabel(textwrap.fill(quantity, 34))
        axes.grid(alpha=0.25)
        legend_above(axes, len(curves))

    ends = "; ".join(f"{name} {shown(c.middle[-1])}" for name, c in curves.items())
    several = any(len(curve.seeds) > 1 for curve in curves.values())
    band = (
        ": interquartile mean over seeds, band: 95 % bootstrap interval (of fewer than "
        f"{FEWEST_TO_RESAMPLE} seeds: mean and range), thin lines: seeds"
        if several
        else ""
    )
    return draw(
        f"{sentence(quantity)} while training{band}.",
        f"Learning curves of {quantity}, at the end: {ends}.",
        3.0 + legend_height(curves),
        paint,
    )


def bars_figure(title: str, bars: Sequence[Bar], caption: str) -> Figure:
    """Draw horizontal bars with their intervals and numbers, first bar on top."""
    low_end = min(0.0, min(_least(bar.estimate) for bar in bars))
    high_end = max(0.0, max(_most(bar.estimate) for bar in bars))
    span = (high_end - low_end) or 1.0

    def paint(axes: Any) -> None:
        for place, bar in enumerate(bars):
            found = bar.estimate
            axes.barh(place, found.value, color=bar.color, height=0.7, alpha=0.85)
            if math.isfinite(found.low):
                axes.plot(
                    [found.low, found.high],
                    [place, place],
                    color="#1b1b1b",
                    linewidth=1.4,
                    zorder=3,
                )
            axes.text(
                max(_most(found), 0.0) + 0.02 * span, place, shown(found.value),
                va="center", fontsize=FONT - 1,
            )  # fmt: skip
        axes.set_yticks(range(len(bars)), [wrapped(bar.label) for bar in bars])
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.set_xlim(low_end - (0.03 * span if low_end < 0 else 0.0), high_end + 0.2 * span)
        axes.set_xlabel(textwrap.fill(title, 40))
        axes.grid(axis="x", alpha=0.25)
        axes.set_axisbelow(True)

    told = "; ".join(f"{bar.label} {_interval_text(bar.estimate)}" for bar in bars)
    return draw(caption, f"Bars of {title}: {told}.", _rows_height(bars), paint)


def groups_figure(title: str, rows: Mapping[str, Mapping[str, Estimate]], caption: str) -> Figure:
    """Draw, in each row, one dot with interval for each of the named parts.

    Args:
        title: the quantity.
        rows: by row, then by part.
        caption: of the figure.
    """
    names = list(dict.fromkeys(name for found in rows.values() for name in found))

    def paint(axes: Any) -> None:
        spread, labelled = 0.6 / max(len(names), 1), set[str]()
        for place, found in enumerate(rows.values()):
            for number, name in enumerate(names):
                if name not in found or not math.isfinite(found[name].value):
                    continue
                height = place + (number - (len(names) - 1) / 2) * spread
                estimate, color = found[name], color_of(number)
                if math.isfinite(estimate.low):
                    axes.plot([estimate.low, estimate.high], [height] * 2, color=color)
                axes.plot(
                    estimate.value,
                    height,
                    MARKERS[number % len(MARKERS)],
                    color=color,
                    markersize=5,
                    label=None if name in labelled else wrapped(name),
                )
                labelled.add(name)
            if place:
                axes.axhline(place - 0.5, color="#dddddd", linewidth=0.7)
        axes.set_yticks(range(len(rows)), [wrapped(name) for name in rows])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(textwrap.fill(title, 40))
        axes.grid(axis="x", alpha=0.25)
        legend_above(axes, len(names))

    told = "; ".join(
        f"{row}: " + ", ".join(f"{name} {shown(e.value)}" for name, e in found.items())
        for row, found in rows.items()
    )
    height = 1.0 + max(0.45, 0.17 * len(names)) * len(rows) + legend_height(names)
    return draw(caption, f"{sentence(title)}. {told}.", height, paint)


def lines_figure(
    series: Mapping[str, Sequence[float]],
    ticks: Sequence[str],
    labels: tuple[str, str],
    caption: str,
    log: bool = False,
    reference: float | None = None,
) -> Figure:
    """Draw one line an experiment over named places.

    Args:
        series: values by name, NaN where there is none.
        ticks: names of the places.
        labels: of the two axes.
        caption: of the figure.
        log: whether values are on a logarithmic scale.
        reference: a value to mark.
    """

    def paint(axes: Any) -> None:
        places = np.arange(len(ticks))
        for number, (name, values) in enumerate(series.items()):
            found = np.asarray(values, dtype=np.float64)
            there = np.isfinite(found) & ((found > 0) | (not log))
            axes.plot(
                places[there],
                found[there],
                label=wrapped(name),
                color=color_of(number),
                marker=MARKERS[number % len(MARKERS)],
                markersize=5,
                linestyle="-" if number < len(PALETTE) else "--",
            )
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(_plain())
        if reference is not None:
            axes.axhline(reference, color="#555555", linewidth=0.9, linestyle=":")
        axes.set_xticks(places, [textwrap.fill(tick, 11) for tick in ticks])
        if labels[0]:
            axes.set_xlabel(labels[0])
        axes.set_ylabel(textwrap.fill(labels[1], 34))
        axes.grid(alpha=0.25)
        legend_above(axes, len(series))

    told = "; ".join(
        f"{name}: "
        + ", ".join(
            f"{tick} {shown(v)}" for tick, v in zip(ticks, values, strict=True) if math.isfinite(v)
        )
        for name, values in series.items()
    )
    return draw(caption, f"{sentence(labels[1])}. {told}.", 3.2 + legend_height(series), paint)


def steps_figure(
    thresholds: NDArray[np.float64],
    profiles: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]],
    labels: tuple[str, str],
    caption: str,
) -> Figure:
    """Draw performance profiles ``(middle, low, high)``, ``[M]`` each, over thresholds ``[M]``."""

    def paint(axes: Any) -> None:
        for number, (name, (middle, low, high)) in enumerate(profiles.items()):
            color = color_of(number)
            axes.step(thresholds, middle, where="post", label=wrapped(name), color=color)
            axes.fill_between(
                thresholds, low, high, step="post", alpha=_BAND_ALPHA, color=color, linewidth=0
            )
        axes.set_xlabel(textwrap.fill(labels[0], 44))
        axes.set_ylabel(labels[1])
        axes.set_ylim(-0.02, 1.05)
        axes.grid(alpha=0.25)
        legend_above(axes, len(profiles))

    def half(middle: NDArray[np.float64]) -> str:
        above = thresholds[middle >= 0.5]
        return shown(float(above.max())) if above.size else f"under {shown(thresholds[0])}"

    told = "; ".join(f"{name} {half(middle)}" for name, (middle, _, _) in profiles.items())
    return draw(
        caption,
        f"Performance profile: half of the seeds reach {told}.",
        3.0 + legend_height(profiles),
        paint,
    )


def _rows_height(bars: Sequence[Bar]) -> float:
    tallest = max(line_count(bar.label) for bar in bars)  # rows are evenly spaced
    return 0.75 + len(bars) * max(0.32, 0.08 + LINE * tallest)


def _thin(count: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, _MOST_POINTS)).round().astype(np.int64))


def _least(estimate: Estimate) -> float:
    return float(np.nanmin([estimate.value, estimate.low]))


def _most(estimate: Estimate) -> float:
    return float(np.nanmax([estimate.value, estimate.high]))


def _thousands() -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")


def _plain() -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{value:g}")


def _interval_text(estimate: Estimate) -> str:
    """Return ``value [low, high]``, the value alone where there is no interval."""
    if not math.isfinite(estimate.low):
        return shown(estimate.value)
    return f"{shown(estimate.value)} [{shown(estimate.low)}, {shown(estimate.high)}]"
