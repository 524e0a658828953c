"""The page's files as they lie: nothing from elsewhere, nothing read as HTML, both languages."""

import json
import re
from pathlib import Path

import pytest

import agents

PAGE = Path(agents.__file__).parent / "service" / "page"
FILES = sorted(PAGE.iterdir())
SCRIPTS = {path.name: path.read_text() for path in FILES if path.suffix == ".js"}
HTML = (PAGE / "index.html").read_text()
WORDS = json.loads((PAGE / "words.json").read_text())
MADE_UP = {"decision.${match[1]}", "name.${plain}"}  # keys put together from what the service says


def phrase_keys(text):
    """Return the keys of phrases that a file asks for by name."""
    called = re.findall(r"\bt\(\s*[\"`]([^\"`]+)[\"`]", text)
    marked = re.findall(r"data-t(?:-label|-placeholder)?=\"([^\"]+)\"", text)
    return {*called, *marked} - MADE_UP


def test_the_page_is_there():
    assert {"index.html", "page.js", "page.css", "words.json"} <= {path.name for path in FILES}
    assert len(SCRIPTS) >= 4


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_is_fetched_from_elsewhere(path):
    text = path.read_text()
    if path.suffix in (".svg", ".js"):
        text = text.replace("http://www.w3.org/2000/svg", "")  # a name, never fetched
    assert not re.search(r"https?:|[\"'(]//|@import|data:", text)


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_the_service_says_is_never_read_as_html_or_code(name):
    unsafe = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function"
    assert not re.search(unsafe + r"|DOMParser|srcdoc|createContextualFragment", SCRIPTS[name])


def test_nothing_in_the_page_needs_a_laxer_content_security_policy():
    assert not re.search(r"\son\w+=|style=|<style|javascript:", HTML)
    assert re.findall(r"<script([^>]*)>", HTML) == [' type="module" src="page.js"']
    assert not any('setAttribute("style"' in text for text in SCRIPTS.values())


def test_both_languages_say_the_same_things():
    english, chinese = WORDS["en"], WORDS["zh"]
    assert english.keys() == chinese.keys()
    for key, phrase in english.items():
        assert phrase and chinese[key]
        assert sorted(re.findall(r"\{\w+\}", phrase)) == sorted(
            re.findall(r"\{\w+\}", chinese[key])
        ), key
    assert sum(english[key] != chinese[key] for key in english) == len(english)


def test_every_phrase_that_is_asked_for_exists_and_every_one_is_used():
    asked = phrase_keys(HTML).union(*map(phrase_keys, SCRIPTS.values()))
    assert len(asked) > 40
    assert asked <= WORDS["en"].keys()
    rest = {key for key in WORDS["en"].keys() - asked if not key.startswith(("name.", "decision."))}
    assert rest == set()


def test_every_component_channel_and_block_has_a_name():
    from marec_env.pipeline.component import COMPONENTS
    from marec_env.pipeline.ranking import BLOCKS
    from marec_env.pipeline.recall import CHANNELS

    registries = CHANNELS, BLOCKS, COMPONENTS
    own = [name for registry in registries for name in registry.names() if "test" not in name]
    named = [name.partition("/")[0] for name in own]
    assert {"cf", "notes", "user_text", "rerank", "trainer", "profile"} <= set(named)
    assert [name for name in named if f"name.{name}" not in WORDS["en"]] == []


def test_the_page_has_landmarks_and_labels():
    assert HTML.count("<main>") == HTML.count("<h1>") == 1
    for mark in ("<header>", "<footer>", 'role="status"', 'role="alert"', 'class="skip-link"'):
        assert mark in HTML
    labelled = re.findall(r'<label for="([^"]+)"', HTML)
    fields = re.findall(r'<(?:input|select) id="([^"]+)"', HTML)
    assert sorted(labelled) == sorted(fields)
    for section in re.findall(r'<section[^>]*aria-labelledby="([^"]+)"', HTML):
        assert f'id="{section}"' in HTML
