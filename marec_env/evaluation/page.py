"""One self-contained HTML page that compares algorithms: no script, no network."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jinja2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Curve", "Figure", "TextTable", "curves_figure", "render_page"]

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: auto; padding: 1rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { border-bottom: 1px solid #ccc; padding: .3rem .5rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
.scroll { overflow-x: auto; } figure { margin: 1.5rem 0; } svg { max-width: 100%; height: auto; }
.note { background: #fff4d6; border-left: 4px solid #b98a00; padding: .5rem 1rem; }
@media print { body { max-width: none; } figure { break-inside: avoid; } }
</style></head><body>
<h1>{{ title }}</h1>
{% for note in notes %}<p class="note">{{ note }}</p>{% endfor %}
{% for table in tables %}
<h2>{{ table.title }}</h2>
<div class="scroll" tabindex="0" role="region" aria-label="{{ table.title }}"><table>
<thead><tr>{% for cell in table.header %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in table.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endfor %}
{% for figure in figures %}
<figure role="img" aria-label="{{ figure.alt }}">{{ figure.svg | safe }}
<figcaption>{{ figure.caption }}</figcaption></figure>
{% endfor %}
</body></html>
"""


@dataclass(frozen=True, slots=True)
class Curve:
    """A quantity over env steps, one row a seed."""

    steps: NDArray[np.float64]
    """``[M]``."""
    values: NDArray[np.float64]
    """``[R, M]``."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture with what a reader who does not see it needs."""

    svg: str
    caption: str
    alt: str


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table of text."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def curves_figure(curves: Mapping[str, Curve], quantity: str) -> Figure:
    """Draw the mean over seeds with a band from the lowest to the highest seed."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(7, 3.6), layout="constrained")
    axes = canvas.subplots()
    for name, curve in curves.items():
        (line,) = axes.plot(curve.steps, curve.values.mean(axis=0), label=name)
        low, high = curve.values.min(axis=0), curve.values.max(axis=0)
        axes.fill_between(curve.steps, low, high, alpha=0.2, color=line.get_color())
    axes.set_xlabel("env steps")
    axes.set_ylabel(quantity)
    axes.legend()
    buffer = io.StringIO()
    canvas.savefig(buffer, format="svg")
    text = buffer.getvalue()
    last = ", ".join(f"{n} ends at {c.values[:, -1].mean():.3g}" for n, c in curves.items())
    return Figure(
        svg=text[text.index("<svg") :],
        caption=f"{quantity} while training: mean over seeds, band from lowest to highest seed.",
        alt=f"Learning curves of {quantity}: {last}.",
    )


def render_page(
    title: str, notes: Sequence[str], tables: Sequence[TextTable], figures: Sequence[Figure]
) -> str:
    """Return the page as HTML; all text is escaped, pictures are inline SVG."""
    template = jinja2.Environment(autoescape=True).from_string(_TEMPLATE)
    return template.render(title=title, notes=notes, tables=tables, figures=figures)
