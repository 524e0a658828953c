"""The plots of the calibration page, as SVG text."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from marec_env.data.calibration.report import Calibration

__all__ = ["Plot", "draw_plots"]

LOG, SIMULATED = "#0072b2", "#d55e00"  # told apart with any colour vision (Okabe and Ito 2008)
_MORE = ("#0072b2", "#d55e00", "#009e73")
_MARKERS = ("o", "s", "^")
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "svg.fonttype": "path",  # readers' fonts differ in width; outlines look the same everywhere
    "legend.frameon": False,
}
_SMALL, _WIDE = (5.4, 3.6), (5.4, 4.6)  # inches
_SHORT = 28  # letters of a topic's name


class Plot:
    """A figure with its title and the words that stand for it where it cannot be seen."""

    def __init__(self, title: str, alternative: str, svg: str, note: str) -> None:
        """Args:
        title: over the figure.
        alternative: what the figure shows, for readers who do not see it.
        svg: an ``<svg>`` element.
        note: how to read it.
        """
        self.title, self.alternative, self.svg, self.note = title, alternative, svg, note


@contextmanager
def _figure(size: tuple[float, float], into: list[str], name: str) -> Iterator[Any]:
    """Yield axes; afterwards append the figure's SVG element."""
    # The salt keeps identifiers of several figures on one page apart, and equal from run to run.
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        yield figure.add_subplot()
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)  # the page decides; the view box stays
    # The figure's own metadata repeats what the page says.
    rest = re.sub(r"<metadata>.*?</metadata>", "", rest, flags=re.DOTALL)
    prefix = re.sub(r"\W", "", name)
    rest = re.sub(r'id="', f'id="{prefix}-', rest)
    rest = re.sub(r'(href="#|url\(#)', rf"\1{prefix}-", rest)
    into.append(f'{head} aria-hidden="true">{rest}')


def _reliability(report: Calibration) -> Plot:
    svg: list[str] = []
    with _figure(_SMALL, svg, "reliability") as axes:
        top = max(max(mean, seen) for task in report.tasks for mean, seen, _ in task.forecast.curve)
        axes.plot([0, top], [0, top], color="0.5", linewidth=1, label="perfect")
        for task, colour, marker in zip(report.tasks, _MORE, _MARKERS, strict=False):
            points = np.array([(mean, seen) for mean, seen, _ in task.forecast.curve])
            axes.plot(*points.T, color=colour, marker=marker, markersize=4, label=task.question)
        axes.set_xlabel("forecast probability")
        axes.set_ylabel("observed rate")
        axes.legend(loc="upper left")
    words = "; ".join(
        f"{task.question}: AUC {task.forecast.auc:.3f}, calibration error "
        f"{task.forecast.calibration_error:.3f}"
        for task in report.tasks
    )
    return Plot(
        "Click model on held-out interactions",
        f"Calibration curves. {words}.",
        svg[0],
        "Each point is a tenth of the held-out cases. On the diagonal, events come as often as "
        "forecast.",
    )


def _sessions(report: Calibration) -> Plot:
    svg: list[str] = []
    values = report.distributions["session_lengths"]
    with _figure(_SMALL, svg, "sessions") as axes:
        for name, colour, style in (("log", LOG, "-"), ("simulated", SIMULATED, "--")):
            ordered = np.sort(np.array(values[name]))
            share = 1.0 - np.arange(ordered.size) / max(ordered.size, 1)
            axes.step(ordered, share, where="pre", color=colour, linestyle=style, label=name)
        axes.set_xscale("log")
        axes.set_xlabel("clicks in the session")
        axes.set_ylabel("share of sessions at least as long")
        axes.legend()
    means = ", ".join(f"{name} {np.mean(values[name] or [0]):.1f}" for name in values)
    return Plot(
        "Session length",
        f"Share of sessions with at least so many clicks. Means: {means}.",
        svg[0],
        "A log's sessions are cut at pauses of 30 minutes. Sessions without clicks do not count, "
        "since a log does not show them.",
    )


def _positions(report: Calibration) -> Plot:
    svg: list[str] = []
    curves = report.distributions["positions"]
    with _figure(_SMALL, svg, "positions") as axes:
        for name, colour, style in (("log", LOG, "-"), ("simulated", SIMULATED, "--")):
            if name in curves:
                curve = curves[name]
                axes.plot(
                    range(1, len(curve) + 1),
                    curve,
                    color=colour,
                    linestyle=style,
                    marker="o",
                    markersize=4,
                    label=name,
                )
        axes.set_ylim(bottom=0)
        axes.set_xlabel("position")
        axes.set_ylabel("clicks per impression")
        axes.legend()
    note = (
        "Where the log states propensities its impressions are weighted by their inverse, so that "
        "better items at the top do not pass for attention."
        if "log" in curves
        else "The log does not say what was shown where; only the simulation has a curve."
    )
    return Plot(
        "Position",
        f"Clicks per impression by position, evenly chosen items: {_ends(curves)}.",
        svg[0],
        note,
    )


def _ends(curves: dict[str, list[float]]) -> str:
    return "; ".join(
        f"{name} from {curve[0]:.3f} to {curve[-1]:.3f}" for name, curve in curves.items()
    )


def _popularity(report: Calibration) -> Plot:
    svg: list[str] = []
    values = report.distributions["popularity"]
    with _figure(_SMALL, svg, "popularity") as axes:
        for name, colour, style in (("log", LOG, "-"), ("simulated", SIMULATED, "--")):
            share = np.array(values[name])
            share = share[share > 0]
            ranks = np.arange(1, share.size + 1)
            axes.plot(ranks, share, color=colour, linestyle=style, label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("rank of the item")
        axes.set_ylabel("share of all clicks")
        axes.legend()
    tops = ", ".join(f"{name} {100 * sum(part[:100]):.0f} %" for name, part in values.items())
    return Plot(
        "Popularity",
        f"Share of clicks by rank of the item. The first hundred items have: {tops}.",
        svg[0],
        "The simulated platform shows items in proportion to their popularity in the log.",
    )


def _topics(report: Calibration) -> Plot:
    svg: list[str] = []
    values = report.distributions["topics"]
    count = len(report.topic_names)
    with _figure((_WIDE[0], max(_WIDE[1], 0.28 * count)), svg, "topics") as axes:
        places = np.arange(count)
        axes.barh(places - 0.2, values["log"], height=0.4, color=LOG, label="log")
        axes.barh(places + 0.2, values["simulated"], height=0.4, color=SIMULATED, label="simulated")
        axes.set_yticks(places, [_shorten(name) for name in report.topic_names])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("share of clicks")
        axes.legend()
    largest = int(np.argmax(values["log"]))
    return Plot(
        "Topics",
        f"Share of clicks by topic. The log's largest is {report.topic_names[largest]} with "
        f"{values['log'][largest]:.2f}, simulated {values['simulated'][largest]:.2f}.",
        svg[0],
        "Topics are clusters of the items' texts.",
    )


def _shorten(name: str) -> str:
    return name if len(name) <= _SHORT else f"{name[: _SHORT - 1]}…"


def _topic_share(report: Calibration) -> Plot:
    svg: list[str] = []
    with _figure(_SMALL, svg, "share") as axes:
        axes.plot(*np.array(report.topic_shares).T, color=LOG, marker="o")
        axes.set_xlabel("share w of topic identity in true tastes")
        axes.set_ylabel("held-out AUC of u·x")
    return Plot(
        "What the log says of topics",
        "Held-out AUC of taste against random items by the share of topic identity: "
        + ", ".join(f"{share:.1f}: {auc:.3f}" for share, auc in report.topic_shares)
        + ".",
        svg[0],
        "The share is a choice of the scenario (population.topic_share); this is what it costs or "
        "brings in agreement with the log.",
    )


def draw_plots(report: Calibration) -> Sequence[Plot]:
    """Draw all plots of the page, in order of reading."""
    return [
        draw(report)
        for draw in (_reliability, _sessions, _positions, _popularity, _topics, _topic_share)
    ]
