"""What comes from a stranger's file does nothing where it is shown."""

import csv
import io
import re

import pytest

from marec_env.evaluation.statistics import Estimate
from marec_env.reporting.charts import Bar, Line, bars_figure, groups_figure, lines_figure
from marec_env.reporting.page import Section, render_markdown, render_page
from marec_env.reporting.table import TextTable, csv_text, markdown, print_tables
from marec_env.reporting.terminal import Terminal

NASTY = [
    "\x1b]0;owned\x07",
    "\x1b[2J\x1b[31mred",
    "\x9b1mbold",
    "one\rtwo",
    "\u202egnp.exe",
    "half \ud800",
]


def _printed(what):
    out = io.StringIO()
    what(Terminal(file=out, width=110, force_terminal=True, color_system="truecolor"))
    ours = re.compile(r"\x1b\[[0-9;]*m")  # rich's own colours
    return ours.sub("", out.getvalue())


@pytest.mark.parametrize("text", NASTY)
def test_a_terminal_is_given_no_commands(text):
    table = TextTable(text, [text, text], [[text, f"1\n{text}"]], [text])
    for printed in (
        _printed(lambda console: print_tables([table], console)),
        _printed(lambda console: console.print(text, markup=False)),
        _printed(lambda console: console.print(f"[bold]{text}", text)),
    ):
        assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800]", printed) is None
        assert "\\" in printed or "two" in printed


def test_tables_stay_in_shape_where_text_is_spelt_out():
    printed = _printed(lambda c: print_tables([TextTable("", ["a", "b"], [[NASTY[0], "1"]])], c))
    assert len({len(line) for line in printed.splitlines()}) == 1


def test_a_table_wider_than_the_terminal_comes_in_parts_and_nothing_is_cut():
    header = ["policy", *(f"package.module:term_{k}" for k in range(9))]
    row = ["random", *(f"{k}.123\n[{k}.111, {k}.222]" for k in range(9))]
    printed = _printed(lambda console: print_tables([TextTable("terms", header, [row])], console))
    assert max(map(len, printed.splitlines())) <= 110
    for k in range(9):
        assert f"package.module:term_{k}" in printed
        assert f"[{k}.111, {k}.222]" in printed
    assert printed.count("random") == printed.count("policy") == 3


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "＝1", '=HYPERLINK("x")'],
)
def test_a_cell_of_csv_is_no_formula(text):
    written = csv_text([text, "n"], [[text, -1.5], ["plain, text", None]])
    read = list(csv.reader(io.StringIO(written)))
    for row in read[:2]:
        assert row[0].startswith("'")
        assert row[0].strip("'") == text.replace("\r", r"\r")
    assert read[1][1] == "-1.5"  # a number is no formula
    assert read[2] == ["plain, text", ""]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
        ("a|b", r"a\|b"),
        ("`rm`", r"\`rm\`"),
        ("*x* _y_ ~z~", r"\*x\* \_y\_ \~z\~"),
        ("snake_case_name", "snake_case_name"),
        ("[text](http://evil)", r"[text]\(http:\//evil)"),
        ("![x][y]", r"![x]\[y]"),
        ("3.2 [3.1, 3.3]", "3.2 [3.1, 3.3]"),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
        ("$x^2$", r"\$x^2\$"),
        ("www.evil.org a@b.org", r"www\.evil.org a\@b.org"),
        ("two\n\n# lines", "two # lines"),
        ("back\\slash", r"back\\slash"),
    ],
)
def test_markup_is_only_text_in_markdown(text, expected):
    assert markdown(text) == expected
    page = render_markdown(text, [text], [text], [Section("s", [TextTable(text, ["h"], [[text]])])])
    assert page.startswith(f"# {expected}\n\n{expected}\n\n> **Note:** {expected}\n")
    assert f"### {expected}\n" in page
    assert f"| {expected} |\n" in page


def test_a_command_cannot_end_its_fence():
    page = render_markdown("t", [], [], [Section("s", verbatim=["x\n```\n# heading"])])
    assert page.endswith("``````bash\nx\n```\n# heading\n``````\n")


@pytest.mark.figures
@pytest.mark.parametrize("text", [*NASTY, "$\\frac{$", "<script>"])
def test_pages_and_figures_take_any_name(text):
    estimate = Estimate(2.0, 1.0, 3.0)
    figures = [
        bars_figure(text, [Bar(text, estimate, "#000000")], text),
        groups_figure(text, {text: {text: estimate}}, text),
        lines_figure({text: Line([0, 1], [1.0, 2.0], [0, 1], [2, 3])}, (text, text), text),
    ]
    table = TextTable(text, [text], [[text]], [text])
    page = render_page(text, [text], [text], [Section(text, [table], figures, [text], [text])])
    page.encode()
    assert "<script>" not in page
    assert re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page) is None
