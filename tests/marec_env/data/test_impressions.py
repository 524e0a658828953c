"""Impressions of the plain format: read, checked, and used."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from agents.studies.calibration.click_model import judge_click_model
from marec_env.data.config import DataConfig, SyntheticConfig
from marec_env.data.log import InteractionLog, load_log
from marec_env.data.population import (
    UNKNOWN_CLICK_RATE,
    PopulationConfig,
    build_population,
    random_click_rate,
)
from marec_env.errors import DataError

INTERACTIONS = "user_id,item_id,rating,timestamp\n1,a,5,10\n2,b,3,20\n"
ITEMS = "item_id,title\na,A\nb,B\nc,C\n"
SHOWN = (
    "user_id,item_id,timestamp,position,click,propensity,purchase\n"
    "2,b,20,1,1,0.25,1\n1,a,10,0,1,0.5,0\n3,c,5,0,0,0.2,0\n2,a,20,0,0,,0\n"
)


def write(folder: Path, **files: str) -> DataConfig:
    files = {"interactions": INTERACTIONS, "items": ITEMS, "impressions": SHOWN, **files}
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    return DataConfig(source=str(folder))


def test_impressions_are_read_and_sorted(tmp_path: Path) -> None:
    log = load_log(write(tmp_path))
    shown = log.impressions
    assert shown is not None
    assert log.user_ids == ("1", "2", "3")  # the third saw something but took nothing
    assert shown.user.tolist() == [0, 1, 1, 2]
    assert shown.item.tolist() == [0, 0, 1, 2]
    assert shown.position.tolist() == [0, 0, 1, 0]
    assert shown.behaviours["click"].tolist() == [1, 0, 1, 0]
    assert shown.behaviours["purchase"].tolist() == [0, 0, 1, 0]
    assert shown.propensity[0] == 0.5
    assert math.isnan(shown.propensity[1])
    assert "impressions.csv" in log.sources


def test_whole_floats_are_whole_numbers(tmp_path: Path) -> None:
    shown = load_log(
        write(tmp_path, impressions=SHOWN.replace(",1,1,", ",1.0,1.0,").replace(",0,1,", ",0.0,1,"))
    ).impressions
    assert shown is not None
    assert shown.position.tolist() == [0, 0, 1, 0]
    assert shown.behaviours["click"].tolist() == [1, 0, 1, 0]


def test_users_numbers_become_attributes(tmp_path: Path) -> None:
    log = load_log(write(tmp_path, users="user_id,gender,risk_limit\n1,F,3\n2,M,7\n3,F,1\n4,M,2\n"))
    assert {name: values.tolist() for name, values in log.user_attributes.items()} == {
        "risk_limit": [3.0, 7.0, 1.0]
    }


def test_a_risk_limit_that_is_no_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'risk_limit' must be a finite number, found '' \(line 3"):
        load_log(write(tmp_path, users="user_id,risk_limit\n1,3\n2,\n3,1\n"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1,a,10,0,2,0.5,0\n", r"1 bad row of 1: 'click' must be 0 or 1, found '2' \(line 2\)"),
        ("1,a,10,-1,1,0.5,0\n", r"'position' must be a whole number from 0 on, found '-1'"),
        ("1,a,10,0.5,1,0.5,0\n", r"'position' must be a whole number"),
        ("1,a,10,1e20,1,0.5,0\n", r"'position' must be a whole number from 0 to 9,999"),
        ("1,a,10,1,1,0.5,0\n", r"no impression at position 0; positions count from 0"),
        ("1,a,10,0,1,0,0\n", r"'propensity' must be in \(0, 1\], or empty if unknown, found '0'"),
        ("1,z,10,0,1,1,0\n", r"'item_id' is not in items.csv, first 'z'"),
        ("1,a,10,0,0,1,1\n", r"'purchase' must be 0 where 'click' is 0"),
        (
            "1,a,soon,0,0,1,0\n",
            r"'timestamp' must be a time: seconds since 1970, or text such as 2021",
        ),
    ],
)
def test_faults_are_named(tmp_path: Path, rows: str, message: str) -> None:
    config = write(tmp_path, impressions=SHOWN.splitlines()[0] + "\n" + rows)
    with pytest.raises(DataError, match=message):
        load_log(config)


def test_unknown_users_and_missing_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"impressions.csv: .*'user_id' is not in users.csv"):
        load_log(write(tmp_path, users="user_id\n1\n2\n"))
    with pytest.raises(DataError, match=r"impressions.csv: missing column click"):
        load_log(write(tmp_path, impressions="user_id,item_id,timestamp,position\n1,a,10,0\n"))


def export(log: InteractionLog, folder: Path, propensities: bool) -> DataConfig:
    """Write a generated log in the plain format."""
    shown = log.impressions
    assert shown is not None
    rows = zip(log.user.tolist(), log.item.tolist(), log.rating.tolist(), log.time, strict=True)
    known = shown.propensity.tolist() if propensities else [""] * len(shown.user)
    seen = zip(
        shown.user.tolist(),
        shown.item.tolist(),
        shown.time.tolist(),
        shown.position.tolist(),
        shown.behaviours["click"].to(torch.int64).tolist(),
        known,
        strict=True,
    )
    return write(
        folder,
        interactions="user_id,item_id,rating,timestamp\n"
        + "".join(f"{u},{i},{r},{int(t)}\n" for u, i, r, t in rows),
        items="item_id,title\n"
        + "".join(f"{place},{title}\n" for place, title in enumerate(log.titles)),
        impressions="user_id,item_id,timestamp,position,click,propensity\n"
        + "".join(",".join(map(str, row)) + "\n" for row in seen),
    )


def test_calibration_uses_them(tmp_path: Path, ecommerce: InteractionLog) -> None:
    """A log that was written and read again tells the examination it was generated with."""
    log = load_log(export(ecommerce, tmp_path, propensities=True))
    topics = torch.arange(log.num_items) % 4
    config = PopulationConfig(dim=8, topic_share=0.0)
    shown = {task.name: task for task in judge_click_model(log, config, topics, 4)}["shown"]
    assert shown.fitted.decay == pytest.approx(0.85, abs=0.03)
    rate = random_click_rate(config, log)
    assert rate == pytest.approx(random_click_rate(config, ecommerce), rel=1e-4)
    population = build_population(config, log, topics, 4)
    logits = population.scale * population.user_factors @ population.item_factors.T
    chance = torch.sigmoid(logits + population.quality + population.intercept)
    assert float(chance.mean()) == pytest.approx(rate, rel=1e-3)


def test_click_rate_without_propensities_or_impressions(
    tmp_path: Path, ecommerce: InteractionLog, blocks: InteractionLog
) -> None:
    log = load_log(export(ecommerce, tmp_path, propensities=False))
    shown = log.impressions
    assert shown is not None
    plain = float(shown.behaviours["click"][shown.position == 0].mean())
    assert random_click_rate(PopulationConfig(), log) == pytest.approx(plain, rel=1e-6)
    assert random_click_rate(PopulationConfig(), blocks) == UNKNOWN_CLICK_RATE
    assert random_click_rate(PopulationConfig(random_click_rate=0.3), log) == 0.3


def test_ads_are_clicked_at_half_a_percent_by_their_platform_and_less_at_random() -> None:
    sizes = SyntheticConfig(num_users=400, num_items=300, seed=1)
    log = load_log(DataConfig(source="synthetic/ads", synthetic=sizes))
    assert log.impressions is not None
    platform = float(log.impressions.behaviours["click"].mean())
    assert platform == pytest.approx(0.005, rel=0.4)
    assert 0.0001 < random_click_rate(PopulationConfig(), log) < platform
