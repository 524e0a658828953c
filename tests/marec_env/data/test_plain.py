"""Logs in the plain format: what is read, and how every fault is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from marec_env.data.config import DataConfig
from marec_env.data.log import load_log
from marec_env.errors import DataError

INTERACTIONS = (
    "user_id,item_id,rating,timestamp,watch_time\n"
    "10,b,5,300,1.5\n2,a,3,100,0\n2,b,4,50,2\n10,a,1,200,0.5\n"
)
ITEMS = (
    "item_id,title,genres,description,year,provider,price\n"
    'a,"Hours, The",Drama|War,"Long, sad",2002,acme,9.5\n'
    "b,Jaws,,,,best,3\nc,Unseen,Drama,,1999,acme,1\n"
)
USERS = "user_id,gender,age\n2,F,24\n10,M,60\n99,F,30\n"


def write(folder: Path, **files: str) -> DataConfig:
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    return DataConfig(source=str(folder))


def test_everything_is_read_and_sorted(tmp_path: Path) -> None:
    log = load_log(write(tmp_path, interactions=INTERACTIONS, items=ITEMS, users=USERS))
    assert log.user_ids == ("2", "10")  # numbers by value; users without interactions left out
    assert log.item_ids == ("a", "b", "c")
    assert log.user.tolist() == [0, 0, 1, 1]
    assert log.time.tolist() == [50, 100, 200, 300]
    assert log.item.tolist() == [1, 0, 0, 1]
    assert log.rating.tolist() == [4, 3, 1, 5]
    assert log.behaviours["watch_time"].tolist() == [2, 0, 0.5, 1.5]
    assert log.liked.tolist() == [True, False, False, True]
    assert log.texts == ("Hours, The. Drama, War. Long, sad", "Jaws", "Unseen. Drama")
    assert log.year.tolist() == [2002, -1, 1999]
    assert log.provider is not None
    assert log.provider.tolist() == [0, 1, 0]
    assert log.item_attributes["price"].tolist() == [9.5, 3, 1]
    assert log.group_names == ("F", "M")
    assert log.group.tolist() == [0, 1]


def test_row_order_does_not_matter_but_content_changes_the_fingerprint(tmp_path: Path) -> None:
    first = load_log(write(tmp_path, interactions=INTERACTIONS, items=ITEMS))
    lines = INTERACTIONS.splitlines()
    shuffled = "\n".join([lines[0], *reversed(lines[1:])])
    second = load_log(write(tmp_path, interactions=shuffled))
    assert torch.equal(first.item, second.item)
    assert torch.equal(first.time, second.time)
    assert first.fingerprint != second.fingerprint
    assert first.group_names == ("all",)


def test_age_bands(tmp_path: Path) -> None:
    config = write(tmp_path, interactions=INTERACTIONS, items=ITEMS, users=USERS)
    log = load_log(config.model_copy(update={"group_by": "age"}))
    assert [log.group_names[index] for index in log.group.tolist()] == ["under 25", "55 and over"]


HEADER = "user_id,item_id,rating,timestamp\n"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"interactions": "user_id,item,rating\n1,a,3\n"},
            r"interactions.csv: missing columns item_id, timestamp \(there are: user_id, item, "
            r"rating; needed: user_id, item_id, rating, timestamp\)",
        ),
        ({"interactions": ""}, r"interactions.csv: the file is empty"),
        ({"interactions": HEADER}, r"interactions.csv: no rows below the header"),
        (
            {"interactions": HEADER + "1,a,x,1\n1,a,3,1\n1,b,nan,2\n"},
            r"2 bad rows of 3: 'rating' must be a finite number, found 'x' \(lines 2, 4\)",
        ),
        (
            {"interactions": HEADER + "1,a,3\n"},
            r"1 bad row of 1: 4 cells expected, found 3 \(line 2\)",
        ),
        (
            {"interactions": HEADER + "1,zz,3,1\n"},
            r"'item_id' is not in items.csv, first 'zz' \(line 2\)",
        ),
        ({"interactions": HEADER + ",a,3,1\n"}, r"'user_id' must be non-empty"),
        (
            {"items": "item_id,title\na,x\nb,y\na,z\n"},
            r"items.csv: 1 bad row of 3: duplicate 'item_id', first 'a' \(line 4\)",
        ),
        ({"items": "item_id,title,title\na,x,y\n"}, r"repeated column 'title'"),
        (
            {"items": "item_id,title,year\na,x,soon\nb,y,\n"},
            r"'year' must be a whole year or empty, found 'soon'",
        ),
        (
            {"items": "item_id,title,colour\na,x,red\nb,y,blue\n"},
            r"2 bad rows of 2: 'colour' must be a finite number",
        ),
        (
            {"users": "user_id,gender\n2,F\n"},
            r"2 bad rows of 4: 'user_id' is not in users.csv, first '10'",
        ),
        (
            {"interactions": HEADER + "1,a,1e39,1\n"},
            r"'rating' must be a number of at most 3.4e38, found '1e39'",
        ),
        ({"interactions": HEADER + "1,a,1_0,1\n"}, r"'rating' must be a finite number"),
        (
            {"interactions": HEADER + f"1,{'9' * 5000},3,1\n"},
            r"'item_id' is not in items.csv, first '9{57}\.\.\.'",
        ),
        (
            {"items": "item_id,title,year\na,x,1e30\nb,y,\n"},
            r"'year' must be a whole year or empty, found '1e30'",
        ),
        (
            {"items": f"item_id,title,year\na,x,{2**63}\nb,y,\n"},
            r"'year' must be a whole year or empty, found '9223372036854775808'",
        ),
        (
            {"interactions": HEADER.strip() + ",event\n2,a,3,1,view\n2,b,3,1,cart\n"},
            r"'event' must be a finite number, found 'view'.*write a 0/1 column for each",
        ),
        ({"users": "user_id\n2\n2\n10\n"}, r"users.csv: 1 bad row of 3: duplicate 'user_id'"),
    ],
)
def test_faults_are_named(tmp_path: Path, files: dict[str, str], message: str) -> None:
    config = write(tmp_path, **{"interactions": INTERACTIONS, "items": ITEMS, **files})
    with pytest.raises(DataError, match=message):
        load_log(config)


def test_many_bad_rows_quote_the_first_lines_only(tmp_path: Path) -> None:
    rows = "".join(f"1,a,x,{time}\n" for time in range(9))
    config = write(tmp_path, interactions=HEADER + rows, items=ITEMS)
    with pytest.raises(DataError, match=r"9 bad rows of 9.*\(lines 2, 3, 4, 5, 6, \.\.\.\)"):
        load_log(config)


def test_missing_places_and_wrong_encoding(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder; allowed: 'movielens-100k'"):
        load_log(DataConfig(source=str(tmp_path / "none")))
    with pytest.raises(DataError, match=r"cannot read .*interactions.csv: No such file"):
        load_log(DataConfig(source=str(tmp_path)))
    write(tmp_path, items=ITEMS)
    (tmp_path / "interactions.csv").write_bytes(HEADER.encode() + b"1,a,3,\xff\n")
    with pytest.raises(DataError, match=r"not UTF-8 text \(byte 39\)"):
        load_log(DataConfig(source=str(tmp_path)))


def test_cells_as_other_tools_write_them(tmp_path: Path) -> None:
    """Whole numbers as floats, unknown ones in words, years in titles, long identifiers."""
    long = "9" * 5000
    log = load_log(
        write(
            tmp_path,
            interactions=HEADER + f"{long},a,5.0,100.0\n10,b,1,1e2\n9,c,3,300\n",
            items="item_id,title,year,price\na,Alien (1979),NaN,1\nb,Brazil,1985.0,\n"
            "c,Casablanca (1942),1943,3\nd,Dune (12),0,4\n",
        )
    )
    assert log.user_ids == ("9", "10", long)
    assert log.time.tolist() == [300, 100, 100]
    assert log.year.tolist() == [1979, 1985, 1943, -1]
    assert log.titles[0] == "Alien (1979)"
    assert log.item_attributes["price"].isnan().tolist() == [False, True, False, False]


def test_rows_taken_in_some_at_a_time_keep_their_lines(tmp_path: Path) -> None:
    # A blank line and a cell of two lines before the bad cell, which is the only one of its text.
    rows = [*(f"u{row},a,5,{row}" for row in range(300)), "", '"u\n0",b,3,7', "u1,b,x,8"]
    config = write(tmp_path, interactions=HEADER + "\n".join(rows) + "\n", items=ITEMS)
    with pytest.raises(DataError, match=r"1 bad row of 302: 'rating' .*found 'x' \(line 305\)"):
        load_log(config)
    good = "\n".join([*rows[:-1], "u1,b,3,8"])
    log = load_log(write(tmp_path, interactions=HEADER + good + "\n"))
    assert log.num_interactions == 302
    assert log.user_ids[0] == "u\n0"
    assert log.item[log.user == log.user_ids.index("u1")].tolist() == [0, 1]
    short = "\n".join([*rows[:290], "u1,b,3", *rows[290:]])
    with pytest.raises(DataError, match=r"1 bad row of 303: 4 cells expected, found 3 \(line 292"):
        load_log(write(tmp_path, interactions=HEADER + short + "\n"))
