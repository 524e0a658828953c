"""Factors over shards of users, measured beside those of all at once."""

from __future__ import annotations

from typing import Any

import pytest

from agents.studies.privacy import shards
from agents.studies.privacy.shards import AT_ONCE, measure_shards, shards_table
from marec_env.environment_config import EnvironmentConfig
from tests.worlds import small_environment


def test_one_shard_recalls_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {AT_ONCE: None, "one": {"shards": 1}, "loud": {"shards": 5, "noise": 50.0}}
    monkeypatch.setattr(shards, "SETTINGS", settings)
    knowledge = {"dim": 4, "sweeps": 3}
    environment = EnvironmentConfig.model_validate(
        {**small_environment(120, 90), "knowledge": knowledge}
    )
    kept: list[dict[str, Any]] = []
    report = measure_shards(environment, 2, 4, 3, kept.append, lambda line: None)
    found = {name: [report["cells"][f"{name}; seed {k}"] for k in (0, 1)] for name in settings}
    recalled = {name: [one["recall"] for one in both] for name, both in found.items()}
    assert recalled["one"] == pytest.approx(recalled[AT_ONCE], abs=0.02)
    assert found["one"][0]["megabytes"] == pytest.approx(3 * (2 * 90 * 4 + 90) * 4 / 1e6)
    assert max(recalled["loud"]) < min(recalled[AT_ONCE])
    assert found["one"][0]["static"] != found["loud"][0]["static"]
    rows = {row[0]: row[1:] for row in shards_table(report).rows}
    assert rows[AT_ONCE][1::2] == ("–", "–", "–")
    assert rows["loud"][1].startswith("-") and float(rows["loud"][5]) < 1.0
    told: list[str] = []
    assert len(kept) == 6
    again = measure_shards(environment, 2, 4, 3, kept.append, told.append, report)
    assert again == report and not told  # all are taken over
