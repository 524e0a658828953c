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
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from marec_env.errors import visible

if TYPE_CHECKING:
    from marec_env.evaluation.statistics import Estimate

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Okabe and Ito's colours, which colour-blind readers tell apart; markers differ as well."""
MARKERS = "osD^vPX"
NEUTRAL = "#9a9a9a"  # what was not trained
INK = "#1b1b1b"
ORACLE = "#d0d0d0"  # what no recommender can know
WIDTH = 4.8  # inches: 346 points, a phone's width, so that 10-point text stays 10 points there
FONT = 10  # points
_LABEL = 20  # characters of a label before it wraps
_DIGITS, _PLACES = 2, 6  # of an interval's half width that are shown; of decimals at most
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
    caption: str, alt: str, height: float, paint: Callable[[Any], None], width: float = WIDTH
) -> Figure:
    """Return what ``paint`` draws into the axes it is given, the same bytes each time; inches."""
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


def interval(estimate: Estimate, between: str = " ", sign: str = "", mark: str = "") -> str:
    """Return ``value [low, high]``, rounded to two digits of the interval's half width; the value
    alone where there is no interval.

    Args:
        estimate: what is shown.
        between: value and interval.
        sign: ``+`` to show that of positive numbers too.
        mark: behind the value.
    """
    half = (estimate.high - estimate.low) / 2.0
    if not math.isfinite(half):
        return f"{estimate.value:{sign}.3g}{mark}" if sign else f"{shown(estimate.value)}{mark}"
    hardly = half <= 1e-4 * abs(estimate.value)  # an interval: three digits of the value
    size = abs(estimate.value) / 10.0 if hardly else half
    places = min(max(_DIGITS - 1 - math.floor(math.log10(size)), 0), _PLACES) if size > 0 else 0
    # Zero is added, so that what rounds to zero has no sign of its own.
    ends = (estimate.value, estimate.low, estimate.high)
    value, low, high = (f"{round(x, places) + 0.0:{sign},.{places}f}" for x in ends)
    return f"{value}{mark}{between}[{low}, {high}]"


def sentence(text: str) -> str:
    """Return the text with a capital."""
    return text[:1].upper() + text[1:]


def wrapped(label: str, width: int = _LABEL) -> str:
    """Return a label in lines of so many characters; what cannot be drawn is spelt out."""
    return textwrap.fill(visible(label), width)


def line_count(label: str) -> int:
    """Return how many lines :func:`wrapped` makes."""
    return wrapped(label).count("\n") + 1


def legend_above(axes: Any, names: Collection[str]) -> None:
    """Put the legend where no line can run through it; the picture grows by its height."""
    columns, canvas = min(max(len(names), 1), 2), axes.figure
    lines = [line_count(name) for name in names]
    rows = [max(lines[i : i + columns]) for i in range(0, len(lines), columns)]
    canvas.set_figheight(canvas.get_figheight() + LINE * sum(rows))
    canvas.legend(
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        fontsize=FONT - 1,
        handlelength=1.5,
        columnspacing=1.2,
    )
