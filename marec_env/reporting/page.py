"""A report as one self-contained HTML page, without script or network, and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from marec_env.errors import visible
from marec_env.reporting.drawing import Figure
from marec_env.reporting.table import TextTable, markdown

__all__ = ["Section", "render_markdown", "render_page"]

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; max-width: 70rem;
  margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: .5rem 0; } h2 { font-size: 1.25rem; margin: 0 0 .5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
section { border-top: 1px solid #ccc; margin-top: 2rem; padding-top: 1rem; }
.skip { position: absolute; left: -999rem; } .skip:focus { position: static; }
:focus-visible { outline: 3px solid #0072b2; outline-offset: 2px; }
nav ul { padding: 0; margin: 0; list-style: none; display: flex; flex-wrap: wrap; gap: 0 1.2rem; }
nav a { display: inline-block; padding: .35rem 0; } a { color: #00558a; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums;
  overflow-wrap: normal; }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: right;
  vertical-align: top; }
td small { display: block; color: #505050; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; }
tbody th { font-weight: 400; min-width: 8rem; max-width: 16rem; }
th:first-child, .text th, .text td { text-align: left; }
td { white-space: nowrap; } .text td { white-space: normal; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr));
  gap: 1.5rem 2rem; align-items: start; margin: 1rem 0; }
figure { margin: 0; } figure svg { width: 100%; height: auto; display: block; }
figcaption, .lead { color: #505050; font-size: .9rem; max-width: 46rem; }
.note { background: #fff4d6; border-left: 4px solid #b98a00; padding: .4rem .8rem; margin: .5rem 0;
  font-size: .95rem; }
pre { font-size: .85rem; white-space: pre-wrap; background: #f4f4f4; padding: .6rem; }
@media print {
  body { max-width: none; font-size: 11pt; padding: 0; } nav, .skip { display: none; }
  table { font-size: 8pt; } th, td { padding: .15rem .3rem; } td { white-space: normal; }
  tbody th { min-width: 4rem; }
  figure, tr, .note { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .figures { grid-template-columns: 1fr 1fr; gap: 1rem; }
}
</style></head><body>
<a class="skip" href="#contents">Skip to the contents</a>
<header><h1>{{ title }}</h1>
{% for line in lead %}<p class="lead">{{ line }}</p>
{% endfor %}</header>
<nav aria-label="Sections"><ul>
{% for section in sections %}<li><a href="#{{ section.anchor }}">{{ section.title }}</a></li>
{% endfor %}</ul></nav>
<main id="contents" tabindex="-1">
{% for note in notes %}<p class="note">{{ note }}</p>
{% endfor %}
{% for section in sections %}<section id="{{ section.anchor }}">
<h2>{{ section.title }}</h2>
{% for line in section.lead %}<p class="lead">{{ line }}</p>
{% endfor %}
{% if section.figures %}<div class="figures">
{% for figure in section.figures %}<figure>
<div role="img" aria-label="{{ figure.alt }}">{{ figure.svg | safe }}</div>
<figcaption>{{ figure.caption }}</figcaption></figure>
{% endfor %}</div>{% endif %}
{% for table in section.tables %}{% if table.title %}<h3>{{ table.title }}</h3>{% endif %}
<div class="scroll" tabindex="0" role="region"
 aria-label="Table: {{ table.title or section.title }}">
<table{% if table.prose %} class="text"{% endif %}>
<thead><tr>{% for cell in table.header %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in table.rows %}<tr>{% for cell in row -%}
{% if loop.first %}<th scope="row">{{ cell }}</th>{% else -%}
{% set first, break, rest = cell.partition("\\n") -%}
<td>{{ first }}{% if rest %}<small>{{ rest }}</small>{% endif %}</td>{% endif %}{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% for line in table.notes %}<p class="lead">{{ line }}</p>
{% endfor %}{% endfor %}
{% for note in section.notes %}<p class="note">{{ note }}</p>
{% endfor %}{% for text in section.verbatim %}<pre>{{ text }}</pre>
{% endfor %}</section>
{% endfor %}
</main></body></html>
"""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page."""

    title: str
    tables: Sequence[TextTable] = ()
    figures: Sequence[Figure] = ()
    lead: Sequence[str] = ()
    """Paragraphs that say how to read it."""
    verbatim: Sequence[str] = ()
    """Commands, shown as they are."""
    notes: Sequence[str] = ()
    """Warnings."""

    @property
    def anchor(self) -> str:
        """Where links to the section lead."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def render_page(
    title: str, lead: Sequence[str], notes: Sequence[str], sections: Sequence[Section]
) -> str:
    """Return the page as HTML; all text is escaped, pictures are inline SVG.

    Args:
        title: of the page.
        lead: paragraphs below it.
        notes: what a reader must know first: warnings, runs left out.
        sections: in order.
    """
    environment = jinja2.Environment(autoescape=True, finalize=_shown)
    template = environment.from_string(_TEMPLATE)
    return template.render(title=title, lead=lead, notes=notes, sections=sections)


def _shown(value: Any) -> Any:
    """Return text without what no file can hold or what would turn lines round."""
    if not isinstance(value, str):
        return value
    return type(value)(visible(value, keep="\n\t"))  # what is marked as HTML stays so marked


def render_markdown(
    title: str, lead: Sequence[str], notes: Sequence[str], sections: Sequence[Section]
) -> str:
    """Return the words and tables as Markdown for a repository; arguments as of a page."""
    parts = [f"# {markdown(title)}\n", *(f"{markdown(line)}\n" for line in lead)]
    parts += [f"> **Note:** {markdown(note)}\n" for note in notes]
    for section in sections:
        parts.append(f"## {markdown(section.title)}\n")
        parts += [f"{markdown(line)}\n" for line in section.lead]
        for table in section.tables:
            parts += [f"### {markdown(table.title)}\n"] if table.title else []
            parts.append(table.as_markdown())
        parts += [f"> **Note:** {markdown(note)}\n" for note in section.notes]
        for text in section.verbatim:
            fence = max(re.findall("`+", text), key=len, default="") + "```"
            parts.append(f"{fence}bash\n{visible(text, keep=chr(10))}\n{fence}\n")
    return "\n".join(parts)
