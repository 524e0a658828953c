from __future__ import annotations

import io

from rich.console import Console

from agents.runs.progress import ProgressDisplay, describe_metrics

ROW = {
    "env_steps": 100,
    "team_reward": 0.23456,
    "episode/clicks": 3.1,
    "episode/length": None,
    "time/env_steps_per_second": 1234.5,
}


def test_numbers_that_are_missing_are_left_out() -> None:
    assert describe_metrics(ROW) == "F/request 0.235  clicks/session 3.10  steps/s 1,234"


def test_plain_lines_come_seldom_and_the_last_always() -> None:
    out = io.StringIO()
    now = iter([0.0, 1.0, 6.0, 6.0, 6.0, 7.0, 8.0, 8.0])
    display = ProgressDisplay(400, 0, Console(file=out, width=20), lambda: next(now))
    with display:
        display.update(ROW)
        display.update({**ROW, "env_steps": 200})
        display.update({**ROW, "env_steps": 400})
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("env_steps 200/400  F/request 0.235")
    assert lines[0].endswith("left 0:06")
    assert lines[1].startswith("env_steps 400/400")


def test_a_terminal_gets_one_live_line() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    with ProgressDisplay(400, 0, console) as display:
        display.update(ROW)
        display.say("[not] markup")
    assert "F/request 0.235" in out.getvalue()
    assert "[not] markup" in out.getvalue()
