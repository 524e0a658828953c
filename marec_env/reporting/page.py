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

_PHONE = 358  # pixels between the margins of a phone's screen; wider tables say that they scroll
_PAGES = jinja2.PackageLoader("marec_env", "reporting")


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
    environment = jinja2.Environment(loader=_PAGES, autoescape=True, finalize=_shown)
    template = environment.get_template("page.html")
    return template.render(title=title, lead=lead, notes=notes, sections=sections, phone=_PHONE)


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
