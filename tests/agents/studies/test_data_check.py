"""The report on a log that somebody brings."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.cli import main
from agents.studies.data_check import tables_of
from marec_env.data.config import DataConfig
from marec_env.data.log import load_log

FILES = {
    "interactions.csv": "user_id,item_id,rating,timestamp,cost\n"
    "u1,a,5,1700000000,2\nu1,b,1,1700000060,\nu2,a,4,1700086400,8\nu1,a,4,1700086400,3\n",
    "items.csv": "item_id,title,genres\na,Fünf Häuser,Drama\nb,日本語,\nc,<b>Никто</b>,Drama\n",
    "friends.csv": "user_id,friend_id\nu2,u1\nu1,u2\nu1,nobody\nu1,u1\n",
    "impressions.csv": "user_id,item_id,timestamp,position,click\nu1,a,1700000000,0,1\n"
    "u1,b,1700000000,1,0\nu3,b,1700000000,2,0\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_what_is_counted_by_hand(folder: Path) -> None:
    config = DataConfig(source=str(folder))
    log = load_log(config)
    assert log.friends is not None
    assert log.friends.tolist() == [[0, 1], [1, 0]]
    assert "friends.csv: 1 of 4 pairs are left out: one of the two is no user" in str(log.warnings)
    counts, numbers, concentration, outlook = tables_of(log, config)
    found = dict(counts.rows)
    assert found["users, items, interactions"] == "3, 3, 4"
    assert found["distinct pairs of user and item"] == "3 (33.333% of all)"
    assert found["pairs met again"] == "1"
    assert found["items without interactions"] == "1"
    assert found["liked"] == "75.0%, from 4 on"
    assert found["times"] == "2023-11-14 to 2023-11-15, 1.0 days"
    assert found["sessions, cut at 30 minutes"] == "3, 1.3 long"
    # Fünf Häuser. Drama (15 letters), 日本語 (3), <b>Никто</b>. Drama (7 and 5)
    assert found["scripts of the texts"] == "latin 73.3%, cyrillic 16.7%, cjk 10.0%"
    assert found["items with genres, with a year"] == "67%, 0%"
    assert found["friendships"] == "2"
    assert found["impressions, clicked"] == "3, 33.333%"
    assert found["places of a slate"] == "3"
    assert ("interactions: cost", "2", "3", "8", "25.0%") in numbers.rows
    assert concentration.rows[0][1:] == ("75% of the log",) * 2 + ("100% of the log", "1", "3")
    how = dict(outlook.rows)
    assert how["click rate of a random examined item"] == "0.5, the log's first places"
    assert "may need 540 items of 3" in how["catalog too small"]
    assert "repeat" not in str(log.warnings)


def test_the_command_prints_it_and_writes_an_escaped_page(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = folder / "page"
    arguments = [str(folder), "--like-threshold", "5", "--output", str(output)]
    assert main(["data", "check", *arguments]) == 0
    assert "25.0%, from 5 on" in capsys.readouterr().out
    assert "from 5 on" in (output / "data.html").read_text(encoding="utf-8")
    assert main(["data", "check", str(folder), "--time-unit", "fortnights"]) == 2
    assert "fortnights" in capsys.readouterr().err


def test_converting_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ratings.csv").write_text("user_id,book_id,rating\n1,7,5\n2,9,\n")
    out = tmp_path / "out"
    assert main(["data", "convert", "goodbooks", str(tmp_path), str(out)]) == 0
    said = capsys.readouterr().err
    assert "1 left out: rating is no number (first ratings.csv line 3)" in said
    assert f"--set environment.data.source={out}" in said
    assert main(["data", "convert"]) == 0
    assert "open-bandit" in capsys.readouterr().err
    assert main(["data", "convert", "goodbook", str(tmp_path), str(out)]) == 2
    assert "goodbooks" in capsys.readouterr().err
    assert main(["data"]) == 2
    assert "convert" in capsys.readouterr().out
