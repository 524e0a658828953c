"""``privacy``: from a configuration to a report on its users."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agents.cli import main
from agents.studies.privacy import shards
from marec_env.data.config import DataConfig
from marec_env.data.readers import files_fingerprint
from tests.worlds import small_environment


@pytest.fixture
def config(tmp_path: Path) -> Path:
    section = small_environment(60, 80)
    section["pipeline"]["messages"] = {"kind": "fixed"}
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps({"environment": section}))
    return path


def test_what_is_learned_of_users_is_reported(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    epsilon = "environment.data.privacy.epsilon=2"
    arguments = ["privacy", str(config), "--models", "4", "--output", str(out), "--requests", "2"]
    monkeypatch.setattr("agents.studies.privacy.report._TRIALS", 50)
    assert main([*arguments, "--set", epsilon]) == 0
    report = json.loads((out / "privacy.json").read_text())
    assert report["users"] == 60 and report["privacy"]["epsilon"] == pytest.approx(2.0)
    assert "the recommender's knowledge alone" in report["notes"][0]  # its own users are attacked
    assert report["audit"]["proved"] <= report["audit"]["stated"] == 2.0
    assert {"released counts, threshold", "all together"} <= report["membership"].keys()
    assert all(0 <= row["value"] <= 1 for row in report["uniqueness"]["items"].values())
    assert "ε = 2" in (out / "privacy.html").read_text()
    assert main(arguments) == 2  # earlier results are kept


def test_models_are_pairs(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["privacy", str(config), "--models", "5"]) == 2
    assert "take an even number" in capsys.readouterr().err


def test_cells_of_several_processes_come_together(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(shards, "SETTINGS", {shards.AT_ONCE: None, "2 shards": {"shards": 2}})
    out = tmp_path / "out"
    arguments = ["privacy", str(config), "--part", "federated", "--sessions", "4", "--seeds", "2"]
    arguments += ["--output", str(out)]
    for seed in (0, 1):
        assert main([*arguments, "--only", f"*seed {seed}"]) == 0
    assert {file.name for file in out.iterdir()} == {
        "federated-seed-0.json", "federated-seed-1.json",
    }  # fmt: skip
    capsys.readouterr()
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert "2 shards" in told.out and "seed" not in told.err  # nothing was measured anew
    assert len(json.loads((out / "federated.json").read_text())["cells"]) == 4
    assert main([*arguments[:-2], "--output", str(out), "--sessions", "6"]) == 2
    assert "made with another plan" in capsys.readouterr().err


def test_a_log_is_anonymised_and_a_user_forgotten_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out, key = tmp_path / "log", tmp_path / "out", tmp_path / "key.txt"
    source.mkdir()
    rows = [f"u{n % 9},i{n % 7},5,{1_500_000_000 + 90_000 * n}" for n in range(200)]
    (source / "interactions.csv").write_text("\n".join(["user_id,item_id,rating,timestamp", *rows]))
    (source / "items.csv").write_text("item_id,title\n" + "".join(f"i{n},T\n" for n in range(7)))
    key.write_text("0123456789abcdef")
    given = ["--key-file", str(key)]
    assert main(["data", "anonymise", str(source), str(out), *given, "--events", "5"]) == 0
    told = capsys.readouterr()
    assert "events beyond 5 of a user" in told.err and "not anonymous" in told.out
    assert "items, before" in told.out and "items and week, after" in told.out
    runs = tmp_path / "runs"
    (runs / "one").mkdir(parents=True)
    hashed = files_fingerprint(DataConfig(source=str(out)))
    (runs / "one" / "manifest.json").write_text(json.dumps({"inputs": {"data": hashed}}))
    assert main(["data", "forget", str(out), "u3", *given, "--runs", str(runs)]) == 0
    told = capsys.readouterr()
    assert "interactions.csv: 5 rows taken out" in told.out
    assert f"{runs / 'one'} learned from them: train it anew" in told.err
    assert main(["data", "forget", str(out), "u3"]) == 2  # without the key there is no such user
