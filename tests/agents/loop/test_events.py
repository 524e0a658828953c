"""Sessions of a service's log: order, ends, teams, and what is refused."""

import pytest

from agents.loop.events import exposure_log
from marec_env import random
from marec_env.errors import DataError

LATE = 1000.0


def row(session, number, time, clicks=(1, 0), version="v1", closed=True, **decision):
    made = {"observation": [number, 0.5], "action": [1.0], "log_probability": -0.25, **decision}
    return {
        "session": session, "number": number, "time": time, "version": version, "closed": closed,
        "slate": ["a", f"b{number}"], "clicks": list(clicks), "attributes": {},
        "decisions": {"picker_0": made},
    }  # fmt: skip


def log_of(rows, longest=5, **options):
    return exposure_log(rows, now=LATE + 5, idle_seconds=60.0, longest=longest, **options)


def test_sessions_are_put_together_in_whatever_order_requests_come():
    rows = [row("s", 1, 20.0, (0, 1)), row("t", 0, LATE), row("s", 0, 10.0, action=[3.0])]
    found = log_of(rows)
    assert found.key.tolist() == [random.key_of("s"), random.key_of("t")]
    assert found.length.tolist() == [2, 1]
    assert found.clicks[0].tolist() == [[1, 0], [0, 1]]
    assert found.actions["picker_0"][0, :, 0].tolist() == [3.0, 1.0]
    assert found.observations["picker_0"][0, :, 0].tolist() == [0.0, 1.0]
    assert found.log_probabilities["picker_0"].tolist() == [[-0.25, -0.25], [-0.25, 0.0]]


def test_what_was_shown_to_whom_is_known_by_name():
    limited = {**row("t", 0, LATE), "attributes": {"risk_limit": 3}}
    found = log_of([row("s", 0, 10.0), row("s", 1, 20.0), limited])
    shown = [[found.items[k] for k in slate] for slate in found.slate[0].tolist()]
    assert shown == [["a", "b0"], ["a", "b1"]]
    assert found.attributes["risk_limit"].tolist() == [float("inf"), 3.0]


def test_who_has_not_come_back_for_long_has_left():
    under_way = [row("t", 0, LATE - 50), row("t", 1, LATE, closed=False)]
    found = log_of([row("s", 0, 10.0, closed=False), *under_way])
    assert found.left.tolist() == [True, False]
    assert found.length.tolist() == [1, 1]  # the open slate of who is still there does not count
    longest = log_of([row("s", 0, 10.0), row("s", 1, 11.0), row("t", 0, LATE)], longest=2)
    assert longest.left.tolist() == [False, False]


def test_a_session_that_changed_its_team_is_cut_off_there():
    rows = [row("s", 0, 1.0), row("s", 1, 2.0, version="v2"), row("t", 0, LATE, version="v2")]
    found = log_of(rows)
    assert found.length.tolist() == [1, 1]
    assert found.left.tolist() == [False, False]
    assert log_of(rows, versions=["v2"]).key.tolist() == [random.key_of("t")]


def test_requests_without_drawn_actions_are_left_out():
    plain = row("s", 1, 2.0)
    del plain["decisions"]
    assert log_of([row("s", 0, 1.0), plain]).length.tolist() == [1]
    with pytest.raises(DataError, match="explore: true"):
        log_of([{**plain, "number": 0}])


def test_a_session_whose_beginning_is_missing_is_left_out():
    with pytest.raises(DataError, match="no session"):
        log_of([row("s", 1, 2.0)])


def test_teams_of_other_components_are_not_mixed():
    wide = row("t", 0, LATE, observation=[1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="session t was served by a team of other components"):
        log_of([row("s", 0, 1.0), wide])
    other = {**row("t", 0, LATE), "decisions": {"mover_0": wide["decisions"]["picker_0"]}}
    with pytest.raises(DataError, match="session t"):
        log_of([row("s", 0, 1.0), other])
