"""The studies as one self-contained HTML page: no network, readable on a phone and in print."""

from __future__ import annotations

import html
from collections.abc import Sequence

from agents.equilibrium.studies.common import Section

__all__ = ["page"]

STYLE = """
:root{color-scheme:light}
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:0 auto;padding:1rem;color:#1b1b1b}
h1{font-size:1.5rem}
h2{font-size:1.2rem;margin-top:2.2rem;border-top:1px solid #ccc;padding-top:1rem}
table{border-collapse:collapse;font-size:.85rem;margin:.6rem 0}
caption{text-align:left;font-weight:600;padding:.3rem 0}
th,td{border-bottom:1px solid #ddd;padding:.25rem .6rem;text-align:left;vertical-align:top}
.scroll{overflow-x:auto}.note{font-size:.85rem;color:#444;margin:.2rem 0}
.warn{border-left:4px solid #d55e00;padding:.2rem .8rem;background:#fff5ee;font-size:.9rem}
figure{margin:1rem 0}figure svg{max-width:100%;height:auto}
figcaption{font-size:.85rem;color:#333}
pre{font-size:.8rem;white-space:pre-wrap}
@media print{h2{break-after:avoid}figure,table{break-inside:avoid}}
"""


def page(title: str, command: str, settings: str, sections: Sequence[Section]) -> str:
    """Return the page.

    Args:
        title: of the page.
        command: how to make it again.
        settings: shown as they are.
        sections: in order.
    """
    contents = "".join(
        f"<li><a href='#{html.escape(s.name)}'>{html.escape(s.title)}</a></li>" for s in sections
    )
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{html.escape(title)}</h1><nav aria-label='Contents'><ul>{contents}</ul></nav>"
        f"{''.join(_section(section) for section in sections)}"
        f"<h2 id='how'>How this was made</h2><pre>{html.escape(command)}</pre>"
        f"<pre>{html.escape(settings)}</pre></main></body></html>\n"
    )


def _section(section: Section) -> str:
    warnings = "".join(f"<p class='warn'>{html.escape(w)}</p>" for w in section.warnings)
    figures = "".join(
        f"<figure role='img' aria-label='{html.escape(figure.alt, quote=True)}'>{figure.svg}"
        f"<figcaption>{html.escape(figure.title)}. {html.escape(figure.alt)}</figcaption></figure>"
        for figure in section.figures
    )
    tables = "".join(table.as_html() for table in section.tables)
    return (
        f"<section><h2 id='{html.escape(section.name)}'>{html.escape(section.title)}</h2>"
        f"{figures}{tables}{warnings}</section>"
    )
