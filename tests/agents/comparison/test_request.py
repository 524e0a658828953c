"""The page of one run follows one request from the catalog to the clicks."""

import html

import pytest

from agents.comparison.report import as_page, run_page
from agents.comparison.runs import TRAINED
from agents.comparison.summary import summarise

TITLE = "<b>Heat</b> $1$ & more"
ITEM = {"channel": "cf", "score": 1.25, "parts": {"text": 1.5, "popularity": -0.25},
        "clicked": True, "relevant": False}  # fmt: skip
SAMPLE = {
    "session": 0,
    "request": 3,
    "new_user": True,
    "unseen": 1640,
    "relevant": 47,
    "channels": {"cf": [30, 7], "text": [10, 2]},
    "candidates": [40, 9],
    "blocks": {"text": True, "popularity": True, "freshness": False},
    "slate": [
        {"title": TITLE, **ITEM},
        {"title": "Alien", **ITEM, "channel": "text", "clicked": False, "relevant": True},
    ],
    "decisions": {"recall_0": {"quota of cf": 3.0, "quota of text": 1.0}},
    "objectives": {"recall_0": 0.1875},
    "reward": 0.4321,
}


def found(evaluation):
    document = evaluation(30.0)
    document["policies"][TRAINED]["sample"] = SAMPLE
    return document


@pytest.mark.figures
def test_the_page_of_a_run_shows_it(make_run, evaluation):
    page = run_page(make_run(found=found(evaluation)))
    assert '<section id="one-request">' in page
    assert TITLE not in page
    assert page.count(html.escape(TITLE)) >= 3  # picture, words beside it, table
    for told in ("1,640 unseen items, 47 relevant", "30, 7 relevant", "2 of 3 computed",
                 "quota of cf 3; quota of text 1", "0.188", "+1.50 text -0.25 popularity",
                 "1 of 2", "a new user", "request 3 counted from 0", "0.432"):  # fmt: skip
        assert told in page, told


def test_several_runs_have_no_request_in_common(make_run, evaluation):
    runs = [make_run(seed=seed, found=found(evaluation)) for seed in (0, 1)]
    assert "one-request" not in as_page(summarise(runs), "t", "x")
    assert "one-request" not in run_page(make_run())
