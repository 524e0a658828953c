"""A session clicked through in a headless browser, against the service itself."""

import dataclasses
import json

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("websockets")

import httpx

from agents.service.bundle import Bundle, load_bundle, save_bundle
from agents.service.replays import played
from agents.service.teams import replays_of
from marec_env.io import write_json
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
        other = f"#found li:nth-child({count}) button"  # the list may still hold what was taken
        browser.wait(f"document.querySelector('{other}')")
        browser.press(other)
        browser.wait(f"document.querySelectorAll('#history li').length == {count}")
    browser.ask(f"document.getElementById('second-team').value = {json.dumps(second)}")
    browser.press("#begin [type=submit]")
    browser.wait(f"document.querySelector('.slate') && {QUIET}")


def texts(browser, selector):
    return browser.ask(
        f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)"
    )


def test_what_is_pressed_twice_is_added_once(url, tmp_path):
    with Browser(tmp_path, 1280) as browser:
        browser.open(f"{url}/")
        browser.wait("document.body?.dataset.ready && document.querySelector('#found button')")
        browser.ask(
            "(() => { const one = document.querySelector('#found button'); one.click(); "
            "one.click(); })()"
        )
        browser.wait("document.querySelectorAll('#history li').length")
        assert len(texts(browser, "#history li")) == 1


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
        told = texts(browser, ".slate.team-0 .told")
        assert len(told) == 5 and all(told) and told == texts(browser, "#reasons .told")
        own = texts(browser, "#reasons strong")
        browser.press("#look-1")  # the other team
        assert browser.ask("document.querySelector('#look-1').ariaPressed") == "true"
        assert texts(browser, "#reasons strong") == texts(browser, ".slate.team-1 .title")
        assert texts(browser, "#reasons strong") != own
        browser.press("[data-language=zh]")
        browser.wait("document.documentElement.lang == 'zh-Hans'")
        assert browser.ask("document.querySelector('h2').textContent") == "你的会话"
        assert texts(browser, "#next") == ["下一页"]
        chinese = texts(browser, ".slate.team-0 .told")
        assert len(chinese) == 5 and not set(chinese) & set(told)
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
    headers = httpx.get(f"{url}/").headers
    assert CSP in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A service with simulated sessions to watch, and a session that it has kept."""
    folder = tmp_path_factory.mktemp("replays")
    world, policy = small_team()
    save_bundle(Bundle.of(world, policy), folder / "films")
    team = load_bundle(folder / "films")
    sessions = played(world, team, 2, 7)
    write_json(replays_of(folder / "films"), {"version": team.version, "sessions": sessions})
    with running([folder / "films"], folder / "page.sqlite") as url:
        yield url, sessions


def watch(browser, url, session="", simulated=0):
    browser.open(f"{url}/")
    browser.wait("document.body?.dataset.ready && document.querySelector('#found button')")
    browser.press("[data-language=en]")
    browser.ask(f"document.getElementById('simulated').value = {simulated}")
    browser.ask(f"document.getElementById('kept').value = {json.dumps(session)}")
    browser.press("#watch [type=submit]")
    browser.wait(f"document.querySelector('.slate') && {QUIET}")


@pytest.mark.parametrize("width", [1280, 390])
def test_a_simulated_session_is_watched_with_what_components_are_judged_by(
    watched, tmp_path, width
):
    url, sessions = watched
    requests = sessions[1]["requests"]
    with Browser(tmp_path, width) as browser:
        watch(browser, url, simulated=1)
        items = [item["title"] for item in requests[0]["items"]]
        assert texts(browser, ".slate .title") == items
        reasons = requests[0]["details"]["reasons"]
        assert texts(browser, ".slate .told") == texts(browser, "#reasons .told") == reasons["en"]
        assert len(texts(browser, ".item.taken")) == len(requests[0]["clicks"])
        legend = texts(browser, "#course .legend li")
        assert legend[0] == "Profile: who you are" and legend[-1] == "F: the team"
        shown = texts(browser, "#course > div > .bar .bar-text")
        told = [*requests[0]["objectives"].values(), requests[0]["satisfaction"]]
        assert shown == [f"{round(100 * one)}%" for one in [*told, requests[0]["team"]]]
        points = browser.ask("document.querySelector('#course .whole').getAttribute('points')")
        assert len(points.split()) == len(requests)
        browser.press("#back")  # there is none before
        for number in range(1, len(requests) + 1):  # and none after the last
            browser.press("#next")
            place = min(number, len(requests) - 1)
            items = [item["title"] for item in requests[place]["items"]]
            assert texts(browser, ".slate .title") == items
        browser.press("[data-language=zh]")
        assert texts(browser, ".slate .told") == requests[-1]["details"]["reasons"]["zh"]
        assert browser.ask("document.documentElement.scrollWidth") <= width
        browser.press("#stop")
        assert browser.ask("document.activeElement.id") == "search"
        assert browser.ask("document.getElementById('running').hidden")
        assert browser.console == []


def test_a_kept_session_is_watched_as_far_as_it_is_kept(watched, tmp_path):
    url, _ = watched
    with httpx.Client(base_url=url) as client:
        session = client.post("/sessions", json={"history": []}).json()["session"]
        slates = [client.post(f"/sessions/{session}/recommendations").json() for _ in range(2)]
        taken = slates[0]["items"][3]
        event = {"id": "1", "request": slates[0]["request"], "item": taken["item"], "type": "click"}
        client.post(f"/sessions/{session}/events", json={"events": [event]})
    with Browser(tmp_path, 1280) as browser:
        watch(browser, url, session=session)
        assert texts(browser, "#past") == ["a new user, of whom nothing is known"]
        assert texts(browser, ".item.taken .title") == [taken["title"]]
        assert texts(browser, "#decisions .note") == [
            "What components decided is not kept with the session."
        ]
        browser.press("#next")
        assert texts(browser, ".item.taken") == []
        assert texts(browser, "#topics .topic-name")
        assert "20%, 0%" in browser.ask("document.querySelector('#course svg').ariaLabel")
        browser.press("#stop")
        browser.ask("document.getElementById('kept').value = 'nobody'")
        browser.press("#watch [type=submit]")
        browser.wait("!document.getElementById('alert').hidden")
        assert "no session 'nobody'" in browser.ask("document.getElementById('alert').textContent")
