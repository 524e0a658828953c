"""The pages as text: complete, self-contained, escaped."""

import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from agents.commands import compare
from agents.commands.evaluate import write_comparison
from agents.comparison.report import as_markdown, as_page, run_page, write_run_report
from agents.comparison.summary import summarise
from marec_env.evaluation.comparison import Evaluation
from marec_env.reporting.page import Section, render_page
from marec_env.reporting.table import TextTable, print_tables

VOID = {"meta", "link", "br", "path", "use", "img"}


class Document(HTMLParser):
    """Collects tags, and checks that they nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def summary(make_run):
    runs = [make_run(clicks=30.0 + s, seed=s) for s in range(3)]
    runs += [make_run(clicks=20.0 + s, seed=s, algorithm__kind="ippo") for s in range(3)]
    return summarise(runs)


@pytest.mark.figures
def test_the_page_has_every_part(summary):
    text = as_page(summary, "Comparison", "python evaluate.py compare a b")
    document = Document(text)
    sections = [attrs["id"] for attrs in document.all("section")]
    assert sections == [
        "outcomes",
        "learning-curves",
        "between-experiments",
        "funnel",
        "user-groups",
        "exposure-of-providers-and-items",
        "ranking-quality-and-further-outcomes",
        "component-objectives",
        "configuration-differences",
        "runs",
    ]
    alternatives = [a["aria-label"] for a in document.all("div") if a.get("role") == "img"]
    for wanted in (
        "Bars of clicks a session: mappo 31.0 [",
        "Bars of satisfaction",
        "Bars of session length in requests",
        "Bars of regret",
        "Learning curves of clicks a session, at the end: mappo 31; ippo 21",
        "Performance profile",
        "Relevant items a request. mappo: relevant to the user 50, among the candidates 10",
        "Share of the relevant items that get past",
        "Clicks a session. mappo: F 32, M 30",
        "Exposure of providers",
    ):
        assert any(wanted in alternative for alternative in alternatives), wanted
    assert len(document.all("figure")) == len(alternatives) == len(document.all("svg"))
    words = " ".join(document.words)
    assert "algorithm.kind" in words
    assert "only 3 seeds" in words
    assert "python evaluate.py compare a b" in words


@pytest.mark.figures
def test_the_page_needs_nothing_but_itself(summary):
    document = Document(as_page(summary, "Comparison", "x"))
    names = [tag for tag, _ in document.tags]
    assert "script" not in names
    for _, attrs in document.tags:
        for name in ("src", "href", "xlink:href"):
            assert attrs.get(name, "#").startswith(("#", "data:")), attrs
    ids = [attrs["id"] for _, attrs in document.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {attrs["href"][1:] for attrs in document.all("a")}
    assert targets <= set(ids)
    assert all(a["tabindex"] == "0" for a in document.all("div") if a.get("class") == "scroll")


def test_text_is_escaped():
    table = TextTable("<b>", ["a"], [["<i>x</i>"]], ["<q>"])
    page = render_page("<u>", ["<s>"], ["<em>"], [Section("t", [table], notes=["<kbd>"])])
    for tag in ("<b>", "<i>", "<u>", "<s>", "<em>", "<q>", "<kbd>"):
        assert html.escape(tag) in page
        assert tag not in page


@pytest.mark.figures
def test_the_same_runs_make_the_same_page(summary):
    assert as_page(summary, "A", "x") == as_page(summary, "A", "x")


def test_markdown_has_the_tables_and_the_command(summary):
    text = as_markdown(summary, "Five algorithms", "python evaluate.py compare runs/*")
    assert text.startswith("# Five algorithms\n")
    assert "> **Note:** only 3 seeds" in text
    assert re.search(r"^\| mappo \| 3 \(0-2\) \| 31.0 \[", text, re.MULTILINE)
    assert "```bash\npython evaluate.py compare runs/*\n```" in text
    widths = {
        block: {line.count("|") - line.count("\\|") for line in block.splitlines()}
        for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    }
    assert widths
    assert all(len(counts) == 1 for counts in widths.values())


def test_a_cell_cannot_break_a_markdown_table():
    table = TextTable("", ["a", "b"], [["x|y", "1\n[0, 2]"]])
    assert table.as_markdown().splitlines()[-1] == "| x\\|y | 1 [0, 2] |"


def test_notes_of_a_table_stand_below_it_everywhere(capsys):
    table = TextTable("Title", ["policy", "clicks"], [["random", "3"]], ["how to read it"])
    assert table.as_markdown().endswith("| random | 3 |\n\nhow to read it\n")
    print_tables([table])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "Title"
    assert lines[-1].strip() == "how to read it"


def test_one_run_has_a_page_of_its_own(write_run):
    folder = write_run(seed=2)
    assert write_run_report(folder) == folder / "report.html"
    words = (folder / "report.html").read_text()
    assert "<title>marec: mappo, seed 2</title>" in words
    assert "Bars of clicks" in words
    assert "one seed" in words


def test_what_is_not_plausible_about_the_data_stands_on_every_page(make_run):
    run = replace(make_run(), warnings=("no times",))
    assert "data: no times" in as_page(summarise([run, make_run(seed=1)]), "t", "x")
    assert "data: no times" in run_page(run)
    assert "data: no times" in run_page(replace(run, evaluation=None))


def test_a_run_without_evaluation_has_its_curves(make_run):
    run = replace(make_run(), evaluation=None, defects=("not evaluated",))
    document = Document(run_page(run))
    assert [attrs["id"] for attrs in document.all("section")] == ["learning-curves", "runs"]
    assert any("not evaluated" in word for word in document.words)


def test_one_experiments_page_has_what_the_learner_says_by_part(make_run):
    parts = {"term/retention": 0.5, "entropy/recall_0": 4.0, "kl/recall_0": 0.01}
    runs = [make_run(seed=0), make_run(seed=1)]
    runs = [replace(run, metrics=[{**row, **parts} for row in run.metrics]) for run in runs]
    for page in (run_page(runs[0]), run_page(replace(runs[0], evaluation=None)),
                 as_page(summarise(runs), "t", "x")):  # fmt: skip
        told = [a.get("aria-label", "") for a in Document(page).all("div")]
        assert any("reward term a request" in t and "retention 0.5" in t for t in told)
        assert any("entropy of the actions" in t and "recall_0 4" in t for t in told)
    other = replace(make_run(algorithm__kind="ippo"), metrics=runs[0].metrics)
    assert "How it learned" not in as_page(summarise([*runs, other]), "t", "x")


def test_an_unfinished_run_says_so_on_its_page(write_run):
    folder = write_run()
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:2]))
    write_run_report(folder)
    assert "unfinished (200,000 of 400,000" in (folder / "report.html").read_text()


def test_an_evaluation_leaves_its_numbers_and_the_page(evaluation, write_run):
    folder = write_run(clicks=1.0)
    written = write_comparison(Evaluation(**evaluation(44.0)), folder, env_steps=400_000)
    assert [path.name for path in written] == ["evaluation.json", "evaluation.csv", "report.html"]
    assert set(json.loads(written[0].read_text())["git"]) == {"commit", "dirty", "source"}
    assert "Bars of clicks a session: trained team 44.0 [43.0, 45.0]" in written[2].read_text()


@pytest.mark.parametrize(
    ("change", "suffix"),
    [
        (lambda found: found.update(sessions=8), "-8sessions"),
        (lambda found: found.update(seed=9), "-seed9"),
        (lambda found: [found["policies"].pop(n) for n in ("random", "popularity", "oracle")],
         "-no_baselines"),
        (lambda found: found["policies"].update({"a.b:f": found["policies"].pop("random")}),
         "-a.b_f+oracle+popularity"),
    ],
)  # fmt: skip
def test_an_evaluation_of_other_settings_never_replaces_the_runs_own(
    evaluation, write_run, change, suffix
):
    folder = write_run(clicks=1.0)
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    found = evaluation(44.0)
    change(found)
    written = write_comparison(Evaluation(**found), folder, env_steps=400_000)
    names = [f"evaluation{suffix}.json", f"evaluation{suffix}.csv", f"report{suffix}.html"]
    assert [path.name for path in written] == names
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert "trained team 44.0 [43.0, 45.0]" in written[2].read_text()
    written = write_comparison(Evaluation(**found), folder, env_steps=400_000, replace=True)
    assert written[0].name == "evaluation.json"
    assert json.loads(written[0].read_text())["policies"] == found["policies"]


def test_the_command_writes_everything_it_says(write_run, tmp_path, capsys):
    runs = [write_run(seed=s) for s in (0, 1)]
    output = tmp_path / "out"
    compare.command(runs, output, "Title", tmp_path / "table.md")
    assert {p.name for p in output.iterdir()} == {
        "comparison.json",
        "comparison.csv",
        "comparison.html",
    }
    assert (tmp_path / "table.md").read_text().startswith("# Title")
    printed = capsys.readouterr().out
    assert "User outcomes" in printed
    assert "note: only 2 seeds" in printed


def test_a_page_has_what_readers_and_their_tools_go_by(summary):
    document = Document(as_page(summary, "Five <algorithms>", "x"))
    assert document.all("html") == [{"lang": "en"}]
    words = "".join(document.words)
    assert words.count("Five <algorithms>") == 2  # title and heading
    first = document.all("a")[0]
    assert (first["class"], first["href"]) == ("skip", "#contents")
    anchors = {attrs["id"] for _, attrs in document.tags if "id" in attrs}
    assert {attrs["href"].removeprefix("#") for attrs in document.all("a")} <= anchors
    images = [attrs for attrs in document.all("div") if attrs.get("role") == "img"]
    assert all(len(attrs["aria-label"]) > 20 for attrs in images)
    regions = [attrs for attrs in document.all("div") if attrs.get("class") == "scroll"]
    assert len(regions) == len(document.all("table"))
    assert all(attrs["aria-label"].startswith("Table: ") for attrs in regions)


def test_only_tables_wider_than_a_phone_say_that_they_scroll():
    narrow = TextTable("narrow", ["policy", "clicks"], [["static", "12"]])
    numbers = TextTable("wide", ["policy", *"abcde"], [["static", *["12.5\n[11.2, 13.8]"] * 5]])
    prose = TextTable(
        "prose", ["item", *"abc"], [["one two", "x" * 9, "three four", "z"]], prose=True
    )
    for table, told in ((narrow, False), (numbers, True), (prose, True)):
        page = render_page("t", (), (), [Section("s", [table])])
        assert ("scrolls sideways" in " ".join(page.split())) is told, table.title
