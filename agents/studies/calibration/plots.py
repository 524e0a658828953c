"""The plots of the calibration page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agents.studies.calibration.report import Calibration
from marec_env.errors import visible
from marec_env.reporting.drawing import (
    MARKERS,
    Figure,
    color_of,
    draw,
    legend_above,
    legend_height,
)

__all__ = ["draw_plots"]

_HEIGHT, _TALL = 3.0, 4.3  # inches, without the legend
_STYLES = {"log": "-", "simulated": "--"}
_SHORT = 28  # letters of a topic's name


def _reliability(report: Calibration) -> Figure:
    def paint(axes: Any) -> None:
        top = max(max(mean, seen) for task in report.tasks for mean, seen, _ in task.forecast.curve)
        axes.plot([0, top], [0, top], color="0.5", linewidth=1, label="perfect")
        for number, task in enumerate(report.tasks):
            points = np.array([(mean, seen) for mean, seen, _ in task.forecast.curve])
            marker = MARKERS[number % len(MARKERS)]
            axes.plot(
                *points.T, color=color_of(number), marker=marker, markersize=4, label=task.question
            )
        axes.set_xlabel("forecast probability")
        axes.set_ylabel("observed rate")
        _finish(axes, len(report.tasks) + 1)

    words = "; ".join(
        f"{task.question}: AUC {task.forecast.auc:.3f}, calibration error "
        f"{task.forecast.calibration_error:.3f}"
        for task in report.tasks
    )
    return draw(
        "Click model on held-out interactions. Each point is a tenth of the held-out cases. On the "
        "diagonal, events come as often as forecast.",
        f"Calibration curves. {words}.",
        _HEIGHT + legend_height(["perfect", *(task.question for task in report.tasks)]),
        paint,
    )


def _sessions(report: Calibration) -> Figure:
    values = report.distributions["session_lengths"]

    def paint(axes: Any) -> None:
        for number, (name, style) in enumerate(_STYLES.items()):
            ordered = np.sort(np.array(values[name]))
            share = 1.0 - np.arange(ordered.size) / max(ordered.size, 1)
            axes.step(
                ordered, share, where="pre", color=color_of(number), linestyle=style, label=name
            )
        axes.set_xscale("log")
        axes.set_xlabel("clicks in the session")
        axes.set_ylabel("share of sessions at least as long")
        _finish(axes, len(_STYLES))

    means = ", ".join(f"{name} {np.mean(values[name] or [0]):.1f}" for name in values)
    return draw(
        "Session length. A log's sessions are cut at pauses of 30 minutes. Sessions without clicks "
        "do not count, since a log does not show them.",
        f"Share of sessions with at least so many clicks. Means: {means}.",
        _HEIGHT + legend_height(_STYLES),
        paint,
    )


def _positions(report: Calibration) -> Figure:
    curves = report.distributions["positions"]

    def paint(axes: Any) -> None:
        for number, (name, style) in enumerate(_STYLES.items()):
            if name in curves:
                curve = curves[name]
                axes.plot(
                    range(1, len(curve) + 1),
                    curve,
                    color=color_of(number),
                    linestyle=style,
                    marker="o",
                    markersize=4,
                    label=name,
                )
        axes.set_ylim(bottom=0)
        axes.set_xlabel("position")
        axes.set_ylabel("clicks per impression")
        _finish(axes, len(curves))

    note = (
        "Where the log states propensities its impressions are weighted by their inverse, so that "
        "better items at the top do not pass for attention."
        if "log" in curves
        else "The log does not say what was shown where; only the simulation has a curve."
    )
    return draw(
        f"Position. {note}",
        f"Clicks per impression by position, evenly chosen items: {_ends(curves)}.",
        _HEIGHT + legend_height(curves),
        paint,
    )


def _ends(curves: Mapping[str, Sequence[float]]) -> str:
    return "; ".join(
        f"{name} from {curve[0]:.3f} to {curve[-1]:.3f}" for name, curve in curves.items()
    )


def _popularity(report: Calibration) -> Figure:
    values = report.distributions["popularity"]

    def paint(axes: Any) -> None:
        for number, (name, style) in enumerate(_STYLES.items()):
            share = np.array(values[name])
            share = share[share > 0]
            ranks = np.arange(1, share.size + 1)
            axes.plot(ranks, share, color=color_of(number), linestyle=style, label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("rank of the item")
        axes.set_ylabel("share of all clicks")
        _finish(axes, len(_STYLES))

    tops = ", ".join(f"{name} {100 * sum(part[:100]):.0f} %" for name, part in values.items())
    return draw(
        "Popularity. The simulated platform shows items in proportion to their popularity in the "
        "log.",
        f"Share of clicks by rank of the item. The first hundred items have: {tops}.",
        _HEIGHT + legend_height(_STYLES),
        paint,
    )


def _topics(report: Calibration) -> Figure:
    values = report.distributions["topics"]
    count = len(report.topic_names)

    def paint(axes: Any) -> None:
        places = np.arange(count)
        for number, (name, shift) in enumerate((("log", -0.2), ("simulated", 0.2))):
            axes.barh(places + shift, values[name], height=0.4, color=color_of(number), label=name)
        axes.set_yticks(places, [_shorten(name) for name in report.topic_names])
        axes.invert_yaxis()
        axes.set_xlabel("share of clicks")
        _finish(axes, len(_STYLES), "x")

    largest = int(np.argmax(values["log"]))
    return draw(
        "Topics. They are clusters of the items' texts.",
        f"Share of clicks by topic. The log's largest is {report.topic_names[largest]} with "
        f"{values['log'][largest]:.2f}, simulated {values['simulated'][largest]:.2f}.",
        max(_TALL, 0.28 * count) + legend_height(_STYLES),
        paint,
    )


def _shorten(title: str) -> str:
    name = visible(title)
    return name if len(name) <= _SHORT else f"{name[: _SHORT - 1]}…"


def _topic_share(report: Calibration) -> Figure:
    def paint(axes: Any) -> None:
        axes.plot(*np.array(report.topic_shares).T, color=color_of(0), marker="o")
        axes.set_xlabel("share w of topic identity in true tastes")
        axes.set_ylabel("held-out AUC of u·x")
        axes.grid(alpha=0.25)

    return draw(
        "What the log says of topics. The share is a choice of the scenario "
        "(population.topic_share); this is what it costs or brings in agreement with the log.",
        "Held-out AUC of taste against random items by the share of topic identity: "
        + ", ".join(f"{share:.1f}: {auc:.3f}" for share, auc in report.topic_shares)
        + ".",
        _HEIGHT,
        paint,
    )


def _finish(axes: Any, series: int, grid: str = "both") -> None:
    axes.grid(axis=grid, alpha=0.25)
    axes.set_axisbelow(True)
    legend_above(axes, series)


def draw_plots(report: Calibration) -> Sequence[Figure]:
    """Draw all plots of the page, in order of reading."""
    plots = (_reliability, _sessions, _positions, _popularity, _topics, _topic_share)
    return [plot(report) for plot in plots]
