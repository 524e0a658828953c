"""A session clicked through in a headless browser, against the service itself."""

import dataclasses
import json

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("websockets")

from agents.service.bundle import Bundle, save_bundle
from tests.agents.loop.test_service import running
from tests.agents.service.browser import CHROMIUM, Browser
from tests.agents.service.conftest import small_team

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

MARKUP = "<img src=x onerror=document.title='caught'>"
QUIET = "!document.body.hasAttribute('aria-busy')"
CSP = "default-src 'none'"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A service whose titles would act if they were read as HTML."""
    folder = tmp_path_factory.mktemp("page")
    bundle = Bundle.of(*small_team())
    titles = tuple(f"{title} {MARKUP}" for title in bundle.titles)
    save_bundle(dataclasses.replace(bundle, titles=titles), folder / "films")
    with running([folder / "films"], folder / "page.sqlite") as place:
        yield place


def begin(browser, url, second=""):
    browser.open(f"{url}/")
    browser.wait("document.body?.dataset.ready && document.querySelector('#found button')")
    browser.press("[data-language=en]")
    for count in (1, 2):
        browser.wait("document.querySelector('#found button')")
        browser.press("#found button")
        browser.wait(f"document.querySelectorAll('#history li').length == {count}")
    browser.ask(f"document.getElementById('second-team').value = {json.dumps(second)}")
    browser.press("#begin [type=submit]")
    browser.wait(f"document.querySelector('.slate') && {QUIET}")


def texts(browser, selector):
    return browser.ask(
        f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)"
    )


def test_a_session_is_clicked_through_beside_the_hand_set_team(url, tmp_path):
    with Browser(tmp_path, 1280) as browser:
        begin(browser, url, second="static")
        slates = browser.ask("document.querySelectorAll('.slate').length")
        assert slates == 2
        shown = texts(browser, ".slate.team-0 .title")
        assert len(shown) == 5 and all(MARKUP in title for title in shown)
        browser.press("#click-0-1")
        browser.wait(f"document.querySelector('.item.taken') && {QUIET}")
        browser.press("#skip-0-2")
        browser.wait(f"document.querySelector('.item.passed') && {QUIET}")
        assert texts(browser, "#funnel .bar-text")[-1] == "1"
        assert texts(browser, "#no-course, #course .note") == ["Shown from the second slate on."]
        topic = texts(browser, ".slate.team-0 .item .topic")[1]
        assert topic in texts(browser, "#topics .topic-name")
        browser.press("#next")
        browser.wait(f"document.querySelector('#course svg') && {QUIET}")
        after = texts(browser, ".slate.team-0 .title")
        assert set(after).isdisjoint(shown)
        assert "20%" in browser.ask("document.querySelector('#course svg').ariaLabel")
        cards = texts(browser, "#decisions h4")
        assert cards[0] == "Profile: who you are" and "Messages" in cards
        assert len(texts(browser, "#reasons li")) == 5
        assert "Brought by" in texts(browser, "#reasons li")[0]
        own = texts(browser, "#reasons strong")
        browser.press("#look-1")  # the other team
        assert browser.ask("document.querySelector('#look-1').ariaPressed") == "true"
        assert texts(browser, "#reasons strong") == texts(browser, ".slate.team-1 .title")
        assert texts(browser, "#reasons strong") != own
        browser.press("[data-language=zh]")
        browser.wait("document.documentElement.lang == 'zh-Hans'")
        assert browser.ask("document.querySelector('h2').textContent") == "你的会话"
        assert texts(browser, "#next") == ["下一页"]
        browser.press("#forget")
        browser.wait(f"!document.getElementById('begin').hidden && {QUIET}")
        assert browser.ask("document.title") == "marec"  # no title acted
        assert browser.ask("document.images.length") == 0
        assert browser.console == []


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_sticks_out_at_any_width(url, tmp_path, width):
    with Browser(tmp_path, width) as browser:
        begin(browser, url, second="static")
        browser.press("#next")
        browser.wait(f"document.querySelector('#course svg') && {QUIET}")
        assert browser.ask("document.documentElement.scrollWidth") <= width
        cut = browser.ask(
            "[...document.querySelectorAll('button, .bar-text, h4, .title, select')]"
            ".filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0)"
            ".map(e => e.outerHTML.slice(0, 80))"
        )
        assert cut == []
        small = browser.ask(
            "[...document.querySelectorAll('main button')].filter(e => e.offsetHeight > 0 && "
            "e.offsetHeight < 24).length"
        )
        assert small == 0
        assert browser.console == []


def test_the_keyboard_is_enough(url, tmp_path):
    with Browser(tmp_path, 1280) as browser:
        browser.open(f"{url}/")
        browser.wait("document.body?.dataset.ready && document.querySelector('#found button')")
        browser.key("Tab")
        assert browser.ask("document.activeElement.className") == "skip-link"
        browser.key("Enter")
        for _ in range(20):
            if browser.ask("document.activeElement.id") == "search":
                break
            browser.key("Tab")
        wanted = texts(browser, "#found button")[3].removeprefix("+ ").partition(" <")[0]
        browser.type(wanted)
        browser.wait(f"document.querySelector('#found button')?.textContent.includes("
                     f"{json.dumps(wanted)})")  # fmt: skip
        browser.key("Enter")
        browser.wait("document.querySelectorAll('#history li').length == 1")
        assert wanted in texts(browser, "#history .title")[0]
        for _ in range(60):
            if browser.ask("document.activeElement.type") == "submit":
                break
            browser.key("Tab")
        browser.key("Enter")
        browser.wait(f"document.querySelector('.slate') && {QUIET}")
        for _ in range(10):
            browser.key("Tab")
            if browser.ask("document.activeElement.id") == "click-0-0":
                break
        browser.key("Enter")
        browser.wait(f"document.querySelector('.item.taken') && {QUIET}")
        # Drawing anew leaves the keyboard where it was.
        assert browser.ask("document.activeElement.id") == "click-0-0"


def test_what_goes_wrong_is_told_as_text(url, tmp_path):
    with Browser(tmp_path, 1280) as browser:
        begin(browser, url)
        session = browser.ask("performance.getEntriesByType('resource').map(e => e.name)"
                              ".find(n => n.includes('/recommendations'))")  # fmt: skip
        gone = session.removesuffix("/recommendations")
        assert browser.ask(f"fetch({json.dumps(gone)}, {{method: 'DELETE'}}).then(a => a.status)")
        browser.press("#next")
        browser.wait("!document.getElementById('alert').hidden")
        assert "session" in browser.ask("document.getElementById('alert').textContent")


def test_the_page_comes_with_a_strict_policy(url):
    import httpx

    headers = httpx.get(f"{url}/").headers
    assert CSP in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
