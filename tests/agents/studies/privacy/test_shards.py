"""Factors over shards of users, measured beside those of all at once."""

from __future__ import annotations

import pytest

from agents.studies.privacy import shards
from agents.studies.privacy.shards import AT_ONCE, measure_shards, shards_table
from marec_env.data.config import DataConfig
from marec_env.data.log import load_log
from marec_env.data.recommender_log import KnowledgeConfig


def test_one_shard_recalls_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {AT_ONCE: None, "one": {"shards": 1}, "loud": {"shards": 5, "noise": 50.0}}
    monkeypatch.setattr(shards, "SETTINGS", settings)
    synthetic = {"num_users": 120, "num_items": 90}
    log = load_log(
        DataConfig.model_validate({"source": "synthetic/streaming", "synthetic": synthetic})
    )
    found = measure_shards(log, KnowledgeConfig(dim=4, sweeps=3), 2, lambda line: None)
    assert found["one"]["recall"] == pytest.approx(found[AT_ONCE]["recall"], abs=0.02)
    assert found["one"]["megabytes"] == pytest.approx(3 * (2 * 90 * 4 + 90) * 4 / 1e6)
    assert max(found["loud"]["recall"]) < min(found[AT_ONCE]["recall"])
    rows = {row[0]: row[1:] for row in shards_table(found).rows}
    assert rows[AT_ONCE][1:] == ("–", "–", "–")
    assert rows["loud"][1].startswith("-") and float(rows["loud"][3]) < 1.0
