"""The documentation builds as a site without a warning, and is read without other hosts."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")
pytest.importorskip("material")
pytest.importorskip("mkdocstrings")

ROOT = Path(__file__).parents[1]


class Page(HTMLParser):
    """What a page fetches, what it shows without words, and its language and title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.silent: list[str] = []
        self.found: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        place = given.get("src") or (given.get("href") if tag == "link" else None)
        if place and given.get("rel") != "canonical":
            self.fetched.append(place)
        if tag == "img" and not given.get("alt"):
            self.silent.append(place)
        if tag == "html" and given.get("lang"):
            self.found.add("lang")
        if tag == "title":
            self.found.add("title")
        if "md-skip" in (given.get("class") or ""):
            self.found.add("skip link")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as ``make docs`` builds it."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-q", "-d", str(folder)],
        cwd=ROOT, capture_output=True, text=True, env={"NO_MKDOCS_2_WARNING": "1", "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr.strip(), done.stderr
    return folder


def test_every_page_is_read_without_other_hosts(site):
    pages = sorted(site.rglob("index.html"))
    assert len(pages) > 25
    for place in pages:
        page = Page(place.read_text())
        assert not [p for p in page.fetched if re.match(r"(https?:)?//", p)], place
        assert not page.silent, place
        assert page.found == {"lang", "title", "skip link"}, place
        # A diagram would have its script fetched from elsewhere.
        assert 'class="mermaid"' not in place.read_text(), place


def test_every_document_is_a_page(site):
    for source in sorted((ROOT / "docs").rglob("*.md")):
        page = source.relative_to(ROOT / "docs").with_suffix("")
        assert (site / page / "index.html").is_file(), page


def test_the_root_and_the_notebook_are_pages(site):
    home = (site / "index.html").read_text()
    assert "pictures/pipeline.svg" in home and (site / "pictures/pipeline.svg").is_file()
    assert 'href="results/game/"' in home
    assert "VecStep of 64 sessions" in (site / "start/notebook/index.html").read_text()


def test_public_names_are_there_with_plain_docstrings(site):
    page = "".join(place.read_text() for place in (site / "api").rglob("index.html"))
    for name in (
        "marec_env.env.make_vec", "marec_env.vector.VecStep.rewards", "marec_env.registry.Registry",
        "marec_env.env.PipelineParallelEnv.render", "marec_env.users.base.Users.respond",
        "marec_env.adapters.gym.TeamVectorEnv", "marec_env.rewards.terms.Outcome.slate",
        "agents.recommender.Recommender.recommend",
    ):  # fmt: skip
        assert f'id="{name}"' in page, name
    assert 'id="marec_env.env._' not in page
    assert ":class:`" not in page and ":func:`" not in page and "with autoreset::" not in page
