"""A picture of steps below each other: headings, bars with a note, lines of text with a mark."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from marec_env.errors import visible
from marec_env.reporting.drawing import FONT, INK, LINE, Figure, draw

__all__ = ["Rung", "ladder_figure"]

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
