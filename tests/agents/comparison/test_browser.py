"""The page in a headless browser, at the width of a desk and of a phone.

A script put into a copy of the page measures it and leaves what it found in the document, which
Chromium prints; so nothing but Chromium is needed.
"""

import html
import json
import os
import re
import shutil
import subprocess

import pytest

from agents.comparison.report import as_page
from agents.comparison.summary import summarise

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed"),
    pytest.mark.figures,
]

SMALLEST_TEXT = 8.5  # pixels that the letters of a figure are high, ascenders included
A4 = 718  # pixels between the margins of a page, at 96 a inch and margins of one centimetre
MEASURE = """
const frame = document.getElementById('page');
const page = frame.contentDocument, view = frame.contentWindow;
const box = e => e.getBoundingClientRect();
const figures = [...page.querySelectorAll('figure')].map(figure => {
  const svg = figure.querySelector('svg'), shape = box(svg);
  const texts = [...svg.querySelectorAll('text')];
  return {
    alt: figure.querySelector('[role=img]').getAttribute('aria-label'),
    caption: figure.querySelector('figcaption').textContent,
    width: shape.width, height: shape.height, right: shape.right,
    shapes: svg.querySelectorAll('path').length,
    smallest: Math.min(...texts.map(t => box(t).height)),
    outside: texts.filter(t => box(t).left < shape.left - 2 || box(t).right > shape.right + 2)
      .map(t => t.textContent),
    shown: view.getComputedStyle(svg).visibility === 'visible',
  };
});
const tabbable = [...page.querySelectorAll('a[href], [tabindex="0"]')];
const wide = [...page.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth);
const found = {
  figures,
  width: view.innerWidth,
  overflow: page.documentElement.scrollWidth,
  resources: view.performance.getEntriesByType('resource').map(e => e.name),
  first: tabbable[0].className,
  focused: tabbable.filter(e => { e.focus(); return page.activeElement === e; }).length,
  tabbable: tabbable.length,
  hinted: [...page.querySelectorAll('.hint')]
    .filter(e => box(e).height > 0).map(e => e.nextElementSibling.getAttribute('aria-label')),
  cut: wide.map(e => e.getAttribute('aria-label')),
  unreachable: wide.filter(e => e.tabIndex !== 0 || !e.getAttribute('aria-label')).length,
};
document.getElementById('found').textContent = JSON.stringify(found);
"""


@pytest.fixture
def page(make_run):
    changes = [
        {},
        {"algorithm__kind": "ippo"},
        {"algorithm__learning_rate": 0.001},
        {"name": "a-rather-long-name-of-a-run", "environment__rewards__mode": "own"},
    ]
    runs = [
        make_run(clicks=20.0 + 5 * k + s, seed=s, **change)
        for k, change in enumerate(changes)
        for s in range(3)
    ]
    return as_page(summarise(runs), "Comparison", "python evaluate.py compare runs/*")


def look(page, folder, width):
    """Return what the browser measured of a page shown ``width`` pixels wide, and its log."""
    harness = folder / "harness.html"
    harness.write_text(
        f"<!doctype html><meta charset='utf-8'><link rel='icon' href='data:,'>"
        f"<iframe id='page' style='width:{width}px;height:900px;border:0'"
        f" srcdoc=\"{html.escape(page)}\"></iframe><pre id='found'></pre>"
        f"<script>document.getElementById('page').onload = () => {{{MEASURE}}};</script>"
    )
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}",
            "--window-size=1400,1000", "--virtual-time-budget=5000", "--dump-dom",
            harness.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HOME": str(folder)},
    )  # fmt: skip
    match = re.search(r"<pre id=\"found\">(.*?)</pre>", done.stdout, re.DOTALL)
    assert match and match[1], done.stderr[-2000:]
    return json.loads(html.unescape(match[1])), done.stderr


@pytest.mark.parametrize("width", [1280, 390])
def test_every_figure_is_seen_and_nothing_sticks_out(page, tmp_path, width):
    found, log = look(page, tmp_path, width)
    assert "CONSOLE" not in log
    assert found["width"] == width
    assert found["overflow"] <= width
    assert found["resources"] == []
    assert len(found["figures"]) == 12
    for figure in found["figures"]:
        assert figure["shown"], figure
        assert figure["width"] > 250 and figure["height"] > 100, figure
        assert figure["right"] <= width, figure
        assert figure["shapes"] > 5, figure
        assert len(figure["alt"]) > 40 and len(figure["caption"]) > 20, figure
        assert figure["smallest"] >= SMALLEST_TEXT, figure
        assert figure["outside"] == [], figure


def test_tables_that_scroll_on_a_phone_say_so(page, tmp_path):
    found, _ = look(page, tmp_path, 390)
    assert found["cut"]
    assert set(found["cut"]) == set(found["hinted"])
    assert look(page, tmp_path, 1280)[0]["hinted"] == []


def test_nothing_is_cut_off_on_paper(page, tmp_path):
    paper = page.replace("@media print {", "@media all {")
    assert paper != page
    found, _ = look(paper, tmp_path, A4)
    assert found["cut"] == []
    assert found["overflow"] <= A4


def test_the_keyboard_reaches_everything(page, tmp_path):
    found, _ = look(page, tmp_path, 390)
    assert found["first"] == "skip"
    assert found["focused"] == found["tabbable"] > 10
    assert found["unreachable"] == 0


def test_what_the_page_says_to_the_console_would_be_seen(page, tmp_path):
    _, log = look(page.replace("</body>", "<script>x.y</script></body>"), tmp_path, 390)
    assert "CONSOLE" in log
