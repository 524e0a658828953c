"""A log as a whole: what is taken, what is told, what is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from marec_env.data.config import DataConfig
from marec_env.data.interactions import InteractionLog
from marec_env.data.log import load_log
from marec_env.data.population import PopulationConfig, build_population, random_click_rate
from marec_env.errors import DataError

START = 1_500_000_000
ITEMS = [f"i{n}" for n in range(30)]
MOMENTS = [START + 4_000 * n for n in range(60)]


def write(folder: Path, name: str, header: str, rows: Sequence[Sequence[object]]) -> None:
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def shop(
    folder: Path,
    times: Sequence[object] = MOMENTS,
    ratings: Callable[[int], object] = lambda n: (5, 2, 4)[n % 3],
    items: Sequence[str] = ITEMS,
    **config: object,
) -> InteractionLog:
    """Write six users' ten interactions each, at distinct items, and read them."""
    rows = [(f"u{n % 6}", ITEMS[7 * n % 30], ratings(n), times[n]) for n in range(60)]
    write(folder, "interactions", "user_id,item_id,rating,timestamp", rows)
    write(folder, "items", "item_id,title", [(name, f"Item {name}") for name in items])
    return load_log(DataConfig(source=str(folder), **config))  # type: ignore[arg-type]


def moment(form: str) -> Callable[[int], str]:
    return lambda t: datetime.fromtimestamp(t, UTC).strftime(form)


UNITS: dict[str, tuple[Callable[[int], object], int, str]] = {
    "milliseconds": (lambda t: t * 1000 + 7, 1, "milliseconds since 1970"),
    "microseconds": (lambda t: t * 10**6 + 7, 1, "microseconds since 1970"),
    "nanoseconds": (lambda t: t * 10**9, 1, "nanoseconds since 1970"),
    "fractional days": (lambda t: t / 86_400, 2, "days since 1970"),
    "spreadsheet": (lambda t: t / 86_400 + 25_569, 2, "spreadsheet days since 1899-12-30"),
    "yyyymmdd": (moment("%Y%m%d"), 86_400, "yyyymmdd"),
    "yyyymmddhhmmss": (moment("%Y%m%d%H%M%S"), 1, "yyyymmddhhmmss"),
    "years": (moment("%Y"), 370 * 86_400, "years"),
    "text": (moment("%Y-%m-%d %H:%M:%S"), 1, ""),
    "text with zone": (moment("%Y-%m-%dT%H:%M:%S+00:00"), 1, ""),
    "text with Z": (moment("%Y-%m-%dT%H:%M:%SZ"), 1, ""),
    "slashes": (moment("%Y/%m/%d %H:%M:%S"), 1, ""),
    "dates": (moment("%Y-%m-%d"), 86_400, ""),
}


@pytest.mark.parametrize("unit", UNITS)
def test_units_of_time_are_recognised_and_told(tmp_path: Path, unit: str) -> None:
    form, error, said = UNITS[unit]
    plain = shop(tmp_path)
    assert plain.warnings == ()
    log = shop(tmp_path, [form(t) for t in MOMENTS])
    assert int((log.time.sort().values - plain.time.sort().values).abs().max()) < error
    assert [line for line in log.warnings if said in line] or not said


def test_a_unit_can_be_said(tmp_path: Path) -> None:
    log = shop(tmp_path, [n // 6 for n in range(60)], time_unit="days")
    assert log.time.unique().tolist() == [86_400 * day for day in range(10)]
    assert "are read as days since 1970" in log.warnings[0]


def test_small_numbers_are_an_order_of_the_logs_own_and_told(tmp_path: Path) -> None:
    log = shop(tmp_path, list(range(60)))
    assert log.time.sort().values.tolist() == list(range(60))
    assert "no times from 1980 to 2100 in any unit" in log.warnings[0]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([*MOMENTS[:59], 1000 * START], r"1 bad row of 60: 'timestamp' is seconds .*'15000"),
        ([*MOMENTS[:59], 0], r"1 bad row of 60: 'timestamp' is seconds since 1970 .* found '0'"),
        ([*MOMENTS[:59], "9" * 400], r"'timestamp' must be"),
        ([*MOMENTS[:59], "1e25"], r"'timestamp' is seconds since 1970 .* found '1e25'"),
        ([*MOMENTS[:59], ""], r"'timestamp' must be a time: .* found ''.*without times write 0"),
        ([10**20 + n for n in range(60)], r"no unit puts these times between 1980 and 2100"),
        (["04/03/2021"] * 60, r"60 bad rows of 60: 'timestamp' must be a time"),
        (["9999-12-31"] * 60, r"'timestamp' must be a time"),
    ],
)
def test_times_of_no_unit_are_refused(
    tmp_path: Path, times: Sequence[object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        shop(tmp_path, times)


def sequence(log: InteractionLog) -> list[tuple[str, str]]:
    users, items = log.user.tolist(), log.item.tolist()
    return [(log.user_ids[u], log.item_ids[i]) for u, i in zip(users, items, strict=True)]


@pytest.mark.parametrize("block", [1, 5, 10])
def test_ties_of_time_follow_no_order_of_the_files(tmp_path: Path, block: int) -> None:
    """``block`` requests of a user share a time; with 10 of them the log has no times."""
    times = [START + 90_000 * (n // 6 // block) for n in range(60)]
    sorted_by_name = shop(tmp_path, times)
    reversed_items = shop(tmp_path, times, items=ITEMS[::-1])
    assert sequence(sorted_by_name) == sequence(reversed_items)
    first_user = sorted_by_name.item[sorted_by_name.user == 0]
    in_catalog_order = torch.equal(first_user, first_user.sort().values)
    assert not in_catalog_order
    order = sorted_by_name.user * 10**12 + sorted_by_name.time
    assert bool((order[1:] >= order[:-1]).all())
    told = " ".join(sorted_by_name.warnings)
    assert ("all times are equal" in told) == (block == 10)
    assert ("share their time" in told) == (block == 5)


def test_order_within_a_second_is_kept(tmp_path: Path) -> None:
    log = shop(tmp_path, [1000 * START + (60 - n) for n in range(60)])
    last_first = [ITEMS[7 * n % 30] for n in range(54, -1, -6)]
    assert [item for user, item in sequence(log) if user == "u0"] == last_first


def test_nothing_liked_is_refused_and_everything_is_told(tmp_path: Path) -> None:
    message = r"none of 60 ratings \(0 \.\.\. 1\) reaches data.like_threshold \(4\).*at most 1"
    with pytest.raises(DataError, match=message):
        shop(tmp_path, ratings=lambda n: n % 2)
    with pytest.raises(DataError, match="none of 60 ratings"):
        shop(tmp_path, ratings=lambda n: 1)
    with pytest.raises(DataError, match="none of 100,000 ratings"):
        load_log(DataConfig(like_threshold=6.0))
    [line] = shop(tmp_path, ratings=lambda n: 1, like_threshold=1.0).warnings
    assert "all interactions count as liked: all ratings are 1" in line
    [line] = shop(tmp_path, ratings=lambda n: 80 if n else 3).warnings
    assert "98.3 % of the interactions count as liked: ratings are 3 ... 80" in line
    [line] = shop(tmp_path, ratings=lambda n: 2 if n % 10 == 0 else 10).warnings
    assert "90 % of the interactions count as liked: ratings are 2 ... 10" in line
    assert shop(tmp_path, ratings=lambda n: 2 if n % 10 == 0 else 5).warnings == ()


def test_rows_that_repeat_others_are_told(tmp_path: Path) -> None:
    assert shop(tmp_path).warnings == ()
    path = tmp_path / "interactions.csv"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([*rows, *rows[1:4]]))
    log = load_log(DataConfig(source=str(tmp_path)))
    [line] = [line for line in log.warnings if "repeat" in line]
    assert line.startswith("3 of 63 interactions repeat user, item and time of another")


@pytest.mark.parametrize("name", ["id", "ROW_ID", "__index_level_0__", "Unnamed: 0"])
def test_an_index_with_gaps_is_left_out(tmp_path: Path, name: str) -> None:
    shop(tmp_path)
    path = tmp_path / "interactions.csv"
    head, *rows = path.read_text().splitlines()
    numbered = [f"{name},{head}", *(f"{3 * n + n % 2},{row}" for n, row in enumerate(rows))]
    path.write_text("\n".join(numbered))
    assert load_log(DataConfig(source=str(tmp_path))).behaviours == {}


@pytest.mark.parametrize("word", ["\\N", "#N/A", "<NA>"])
def test_unknown_numbers_as_databases_and_spreadsheets_write_them(
    tmp_path: Path, word: str
) -> None:
    shop(tmp_path)
    path = tmp_path / "items.csv"
    head, *rows = path.read_text().splitlines()
    priced = (f"{row},{n + 0.5 if n else word}" for n, row in enumerate(rows))
    path.write_text("\n".join([f"{head},price", *priced]))
    price = load_log(DataConfig(source=str(tmp_path))).item_attributes["price"]
    assert price.isnan().sum() == 1


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "index", "row", "anything"])
def test_columns_that_count_rows_are_left_out(tmp_path: Path, name: str) -> None:
    shop(tmp_path)
    for file in ("interactions", "items"):
        path = tmp_path / f"{file}.csv"
        head, *rows = path.read_text().splitlines()
        numbered = [f"{name},{head}", *(f"{place},{row}" for place, row in enumerate(rows))]
        path.write_text("\n".join(numbered))
    log = load_log(DataConfig(source=str(tmp_path)))
    assert log.behaviours == log.item_attributes == {}
    assert [line.split(":")[0] for line in log.warnings] == ["interactions.csv", "items.csv"]
    assert "is left out as an index of the rows" in log.warnings[0]


def test_columns_of_numbers_that_do_not_count_rows_stay(tmp_path: Path) -> None:
    shop(tmp_path)
    write(tmp_path, "items", "item_id,title,index,price", [(i, i, 5, 9.5) for i in ITEMS])
    log = load_log(DataConfig(source=str(tmp_path)))
    assert set(log.item_attributes) == {"index", "price"}
    assert log.warnings == ()


def test_unknown_numbers_are_told_and_filled_for_the_simulation(tmp_path: Path) -> None:
    shop(tmp_path)
    price = ["", "NaN", *map(str, range(10, 38))]
    items = [(i, i, p, "") for i, p in zip(ITEMS, price, strict=True)]
    write(tmp_path, "items", "item_id,title,price,weight", items)
    write(tmp_path, "users", "user_id,age", [(f"u{n}", n or "") for n in range(6)])
    log = load_log(DataConfig(source=str(tmp_path), group_by="age"))
    assert torch.isnan(log.item_attributes["price"][:3]).tolist() == [True, True, False]
    assert log.group_names == ("under 25", "unknown")
    assert [line.partition(";")[0] for line in log.warnings] == [
        "'price' of 2 of 30 items is unknown",
        "'weight' of all items is unknown",
        "'age' of 1 of 6 users is unknown",
    ]
    found = build_population(PopulationConfig(dim=2), log, torch.arange(30) % 3, 3)
    assert found.item_attributes["price"][:3].tolist() == [23.0, 23.0, 10.0]
    assert set(found.item_attributes) == {"price"}


def shown(folder: Path, propensity: Callable[[int, int], object]) -> InteractionLog:
    """Write 3,000 impressions: the good half is shown nine times as often as the poor half."""
    shop(folder)
    rows = []
    for n in range(3_000):
        good = n % 10 != 0
        click = int(n % 50 < 10) if good else int(n % 500 == 0)
        said = propensity(n, click)
        known = (0.9 if good else 0.1) / 15 if said is None else said
        rows.append((f"u{n % 6}", ITEMS[n % 15 + (0 if good else 15)], START + n, 0, click, known))
    head = "user_id,item_id,timestamp,position,click,propensity"
    write(folder, "impressions", head, rows)
    return load_log(DataConfig(source=str(folder)))


@pytest.mark.parametrize("word", ["", "NA", "nan", "NULL", "None"])
def test_the_propensities_that_are_there_are_used(tmp_path: Path, word: str) -> None:
    whole = random_click_rate(PopulationConfig(), shown(tmp_path, lambda n, click: None))
    log = shown(tmp_path, lambda n, click: word if n % 97 == 7 else None)
    assert random_click_rate(PopulationConfig(), log) == pytest.approx(whole, abs=0.005)
    [line] = [line for line in log.warnings if "propensities" in line]
    assert (
        line == "31 of 3,000 propensities are not known; rates of random items rest on the others"
    )


def test_propensities_of_clicks_alone_are_not_used(tmp_path: Path) -> None:
    log = shown(tmp_path, lambda n, click: None if click else "")
    assert log.impressions is not None
    plain = float(log.impressions.behaviours["click"].mean())
    assert random_click_rate(PopulationConfig(), log) == pytest.approx(plain)
    assert "too few to be used" in " ".join(log.warnings)
    assert "not missing by chance" in " ".join(log.warnings)


def test_warnings_are_shown_at_load(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        log = shop(tmp_path, [0] * 60)
    assert [record.getMessage() for record in caplog.records] == [
        f"warning: {tmp_path}: {line}" for line in log.warnings
    ]


def test_users_activity_is_told(tmp_path: Path) -> None:
    rows = [(f"u{n}", ITEMS[n % 30], 5 - n % 3, START + 5_000 * n) for n in range(60)]
    shop(tmp_path)
    write(tmp_path, "interactions", "user_id,item_id,rating,timestamp", rows)
    [line] = load_log(DataConfig(source=str(tmp_path))).warnings
    assert "100 % of the users have a single interaction" in line
    rows += [("0", ITEMS[n % 30], 5 - n % 3, START + 5_000 * n) for n in range(100)]
    write(tmp_path, "interactions", "user_id,item_id,rating,timestamp", rows)
    assert (
        "user '0' has 62.5 % of all interactions"
        in load_log(DataConfig(source=str(tmp_path))).warnings[-1]
    )
