"""``privacy``: from a configuration to a report on its users."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agents.cli import main
from tests.worlds import small_environment


@pytest.fixture
def config(tmp_path: Path) -> Path:
    section = small_environment(60, 80)
    section["pipeline"]["messages"] = {"kind": "fixed"}
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps({"environment": section}))
    return path


def test_what_is_learned_of_users_is_reported(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    epsilon = "environment.data.privacy.epsilon=2"
    arguments = ["privacy", str(config), "--models", "4", "--output", str(out), "--requests", "2"]
    assert main([*arguments, "--set", epsilon]) == 0
    report = json.loads((out / "privacy.json").read_text())
    assert report["users"] == 60 and report["privacy"]["epsilon"] == pytest.approx(2.0)
    assert "the recommender's knowledge alone" in report["note"]  # the log's own users are attacked
    assert {"released counts, threshold", "all together"} <= report["membership"].keys()
    assert all(0 <= row["value"] <= 1 for row in report["uniqueness"]["items"].values())
    assert "ε = 2" in (out / "privacy.html").read_text()
    assert main(arguments) == 2  # earlier results are kept


def test_models_are_pairs(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["privacy", str(config), "--models", "5"]) == 2
    assert "take an even number" in capsys.readouterr().err
