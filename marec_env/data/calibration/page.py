"""The calibration page: one self-contained HTML file, readable without network or script."""

from __future__ import annotations

from jinja2 import Environment

from marec_env.data.calibration.plots import draw_plots
from marec_env.data.calibration.report import Calibration
from marec_env.data.calibration.tables import tables_of

__all__ = ["render_page"]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Calibration: {{ report.source }}</title>
<style>
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto;
  padding: 1.5rem; max-width: 72rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
p.note, figcaption { color: #505050; font-size: .9rem; margin: .4rem 0; max-width: 46rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #ddd; text-align: right;
  vertical-align: bottom; }
td { white-space: nowrap; }
th:first-child { text-align: left; font-weight: normal; }
thead th, thead th:first-child { font-weight: 600; border-bottom: 2px solid #888; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr));
  gap: 1.5rem 2rem; align-items: start; }
figure { margin: 0; } h3 { font-size: 1.05rem; margin: 0 0 .4rem; }
svg { width: 100%; height: auto; }
footer { margin-top: 2rem; color: #505050; font-size: .85rem; overflow-wrap: anywhere; }
</style>
</head>
<body>
<header>
<h1>Calibration: {{ report.source }}</h1>
<p class="note">{% for name, count in report.size.items() if count %}{{ "{:,}".format(count) }}
{{ name }}{{ "" if loop.last else ", " }}{% endfor %}</p>
</header>
<main>
{% for table in tables %}<section>
<h2>{{ table.title }}</h2>
<div class="wide" tabindex="0" role="group" aria-label="{{ table.title }}"><table>
<thead><tr>{% for cell in table.header %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}<tr><th scope="row">{{ row[0] }}</th>
{%- for cell in row[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
<p class="note">{{ table.note }}</p>
</section>
{% endfor %}<h2>Plots</h2>
<div class="plots">
{% for plot in plots %}<figure>
<h3>{{ plot.title }}</h3>
<div role="img" aria-label="{{ plot.alternative }}">{{ plot.svg | safe }}</div>
<figcaption>{{ plot.note }}</figcaption>
</figure>
{% endfor %}</div>
</main>
<footer>Log SHA-256 {{ report.fingerprint }}</footer>
</body>
</html>
"""


def render_page(report: Calibration) -> str:
    """Return the page; titles and names from the data are escaped."""
    template = Environment(autoescape=True).from_string(_PAGE)
    return template.render(report=report, tables=tables_of(report), plots=draw_plots(report))
