"""How figures are drawn: one width, one palette, text that stays text, words beside every picture.

Each figure is small enough to be read on a phone; a page puts several beside each other where there
is room. Text stays text, so that it is searched, read aloud and printed sharply.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marec_env.errors import visible

__all__ = [
    "FONT",
    "INK",
    "LINE",
    "MARKERS",
    "NEUTRAL",
    "ORACLE",
    "PALETTE",
    "Figure",
    "color_of",
    "draw",
    "legend_above",
    "legend_height",
    "line_count",
    "sentence",
    "shown",
    "wrapped",
]

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Okabe and Ito's colours, which colour-blind readers tell apart; markers differ as well."""
MARKERS = "osD^vPX"
NEUTRAL = "#9a9a9a"  # what was not trained
INK = "#1b1b1b"
ORACLE = "#d0d0d0"  # what no recommender can know
WIDTH = 4.8  # inches: 346 points, a phone's width, so that 10-point text stays 10 points there
FONT = 10  # points
_LABEL = 20  # characters of a label before it wraps
LINE = 0.2  # inches of height that a line of text takes


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture with what a reader who does not see it needs."""

    svg: str
    caption: str
    alt: str


def color_of(number: int) -> str:
    """Return the colour of the experiment in that place."""
    return PALETTE[number % len(PALETTE)]


def draw(
    caption: str,
    alt: str,
    height: float,
    paint: Callable[[Any], None],
    width: float = WIDTH,
) -> Figure:
    """Return what ``paint`` draws into a matplotlib axes, the same bytes each time.

    Args:
        caption: below the picture.
        alt: what it shows, for readers who do not see it.
        height: inches.
        paint: is given the axes.
        width: inches.
    """
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    settings = {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": visible(f"marec {caption} {alt}"),
        "font.size": FONT,
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.parse_math": False,  # a dollar in a name is a dollar
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the reader's fonts draw it
        canvas, out = Canvas(figsize=(width, height), layout="constrained"), io.StringIO()
        paint(canvas.subplots())
        canvas.savefig(out, format="svg", metadata={"Date": None})
    svg = out.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # Names of groups repeat from figure to figure, and nothing refers to them.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    return Figure(svg, caption, alt)


def shown(value: float) -> str:
    """Return three significant digits, or whole numbers with thousands marked."""
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def sentence(text: str) -> str:
    """Return the text with a capital."""
    return text[:1].upper() + text[1:]


def wrapped(label: str, width: int = _LABEL) -> str:
    """Return a label in lines of so many characters; what cannot be drawn is spelt out."""
    return textwrap.fill(visible(label), width)


def line_count(label: str) -> int:
    """Return how many lines :func:`wrapped` makes."""
    return wrapped(label).count("\n") + 1


def _legend_columns(count: int) -> int:
    return 1 if count < 2 else 2


def legend_height(names: Sequence[str] | Mapping[str, Any]) -> float:
    """Return how many inches the legend of these names takes."""
    columns = _legend_columns(len(names))
    lines = [line_count(name) for name in names]
    return LINE * sum(max(lines[i : i + columns]) for i in range(0, len(lines), columns))


def legend_above(axes: Any, count: int) -> None:
    """Put the legend where no line can run through it."""
    axes.figure.legend(
        loc="outside upper left",
        ncols=_legend_columns(count),
        frameon=False,
        fontsize=FONT - 1,
        handlelength=1.5,
        columnspacing=1.2,
    )
