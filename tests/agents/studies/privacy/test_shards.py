"""Factors over shards of users, measured beside those of all at once."""

from __future__ import annotations

from typing import Any

import pytest

from agents.config import RunConfig
from agents.studies.privacy import shards
from agents.studies.privacy.curve import Plan
from agents.studies.privacy.shards import AT_ONCE, shards_cells, shards_table
from tests.worlds import small_environment


def test_one_shard_recalls_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {AT_ONCE: None, "one": {"shards": 1}, "loud": {"shards": 5, "noise": 50.0}}
    monkeypatch.setattr(shards, "SETTINGS", settings)
    knowledge = {"dim": 4, "sweeps": 3}
    section = {"kind": "marec", **small_environment(120, 90), "knowledge": knowledge}
    run = RunConfig.model_validate({"environment": section})
    study = shards_cells(run, Plan(seeds=2, sessions=4, cohort=3))
    kept: list[dict[str, Any]] = []
    report = study.measured(kept.append, lambda line: None)
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
    again = study.measured(kept.append, told.append, report)
    assert again == report and not told  # all are taken over
