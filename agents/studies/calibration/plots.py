"""The plots of the calibration page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agents.studies.calibration.report import Calibration
from marec_env.errors import visible
from marec_env.reporting.charts import Line, lines_figure
from marec_env.reporting.drawing import Figure, color_of, draw, legend_above, legend_height

__all__ = ["draw_plots"]

_TALL = 4.3  # inches, without the legend
_STYLES = {"log": "-", "simulated": "--"}
_SHORT = 28  # letters of a topic's name


def _reliability(report: Calibration) -> Figure:
    curves = {task.question: np.array(task.forecast.curve)[:, :2].T for task in report.tasks}
    top = max(float(points.max()) for points in curves.values())
    words = "; ".join(
        f"{task.question}: AUC {task.forecast.auc:.3f}, calibration error "
        f"{task.forecast.calibration_error:.3f}"
        for task in report.tasks
    )
    return lines_figure(
        {
            **{question: Line(mean, seen) for question, (mean, seen) in curves.items()},
            "perfect": Line([0.0, top], [0.0, top], style=":"),
        },
        ("forecast probability", "observed rate"),
        "Click model on held-out interactions. Each point is a tenth of the held-out cases. On the "
        "diagonal, events come as often as forecast.",
        alt=f"Calibration curves. {words}.",
    )


def _sessions(report: Calibration) -> Figure:
    values = report.distributions["session_lengths"]
    lines = {}
    for name, style in _STYLES.items():
        ordered = np.sort(np.array(values[name]))
        share = 1.0 - np.arange(ordered.size) / max(ordered.size, 1)
        lines[name] = Line(ordered, share, style=style)
    means = ", ".join(f"{name} {np.mean(values[name] or [0]):.1f}" for name in values)
    return lines_figure(
        lines,
        ("clicks in the session", "share of sessions at least as long"),
        "Session length. A log's sessions are cut at pauses of 30 minutes. Sessions without clicks "
        "do not count, since a log does not show them.",
        alt=f"Share of sessions with at least so many clicks. Means: {means}.",
        log="x",
        marked=False,
        steps="steps-pre",
    )


def _positions(report: Calibration) -> Figure:
    curves = report.distributions["positions"]
    note = (
        "Where the log states propensities its impressions are weighted by their inverse, so that "
        "better items at the top do not pass for attention."
        if "log" in curves
        else "The log does not say what was shown where; only the simulation has a curve."
    )
    told = "; ".join(f"{name} from {c[0]:.3f} to {c[-1]:.3f}" for name, c in curves.items())
    return lines_figure(
        {
            name: Line(range(1, len(curves[name]) + 1), curves[name], style=style)
            for name, style in _STYLES.items()
            if name in curves
        },
        ("position", "clicks per impression"),
        f"Position. {note}",
        alt=f"Clicks per impression by position, evenly chosen items: {told}.",
        span=(0.0, None),
    )


def _popularity(report: Calibration) -> Figure:
    values = report.distributions["popularity"]
    lines = {}
    for name, style in _STYLES.items():
        share = np.array(values[name])
        share = share[share > 0]
        lines[name] = Line(np.arange(1, share.size + 1), share, style=style)
    tops = ", ".join(f"{name} {100 * sum(part[:100]):.0f} %" for name, part in values.items())
    return lines_figure(
        lines,
        ("rank of the item", "share of all clicks"),
        "Popularity. The simulated platform shows items in proportion to their popularity in the "
        "log.",
        alt=f"Share of clicks by rank of the item. The first hundred items have: {tops}.",
        log="xy",
        marked=False,
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
        axes.grid(axis="x", alpha=0.25)
        axes.set_axisbelow(True)
        legend_above(axes, len(_STYLES))

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
    share, auc = np.array(report.topic_shares).T
    told = ", ".join(f"{x:.1f}: {y:.3f}" for x, y in report.topic_shares)
    return lines_figure(
        {"held-out AUC": Line(share, auc)},
        ("share w of topic identity in true tastes", "held-out AUC of u·x"),
        "What the log says of topics. The share is a choice of the scenario "
        "(population.topic_share); this is what it costs or brings in agreement with the log.",
        alt=f"Held-out AUC of taste against random items by the share of topic identity: {told}.",
    )


def draw_plots(report: Calibration) -> Sequence[Figure]:
    """Draw all plots of the page, in order of reading."""
    plots = (_reliability, _sessions, _positions, _popularity, _topics, _topic_share)
    return [plot(report) for plot in plots]
