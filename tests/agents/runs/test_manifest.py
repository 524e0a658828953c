from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from agents.config import RunConfig
from agents.runs import manifest
from agents.runs.manifest import (
    CodeVersion,
    build_manifest,
    changed_inputs,
    changed_settings,
    read_manifest,
    record_resume,
    trained_by,
)
from marec_env import io
from marec_env.errors import RunError

CONFIG = RunConfig.model_validate({"seed": 3, "training": {"env_steps": 9}})


def changed(**sections: Any) -> RunConfig:
    return RunConfig.model_validate({"seed": 3, "training": {"env_steps": 9}, **sections})


def test_what_a_manifest_holds(tmp_path: Path) -> None:
    found = build_manifest(CONFIG, {"data": "1"}, ["train.py"])
    assert (found["versions"]["torch"] or "").startswith("2.")
    assert found["git"] is not None
    assert len(found["git"]["commit"] or "") == 40
    assert found["git"]["dirty"] in (True, False)
    assert found["seeds"] == {"run": 3}
    assert found["hardware"]["cpus"] >= 1  # type: ignore[typeddict-item]
    path = tmp_path / "manifest.json"
    io.write_json(path, found)
    longer = changed(training={"env_steps": 80})
    assert record_resume(path, longer, 40, ["training.env_steps=80"], ["told"]) == []
    again = dict(read_manifest(path))
    [resume] = again.pop("resumes")  # type: ignore[misc]
    assert (resume["env_steps"], resume["notes"]) == (40, ["told"])  # type: ignore[index]
    assert resume["git"] == found["git"]  # type: ignore[index]
    assert again.pop("config") == longer.model_dump(mode="json")
    assert again.pop("config_hash") != found["config_hash"]
    assert again == {k: v for k, v in found.items() if k in again}


def test_resuming_with_other_code_or_versions_is_recorded_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "manifest.json"
    io.write_json(path, build_manifest(CONFIG, {}, []))
    other = CodeVersion("f" * 40, False, "other")
    monkeypatch.setattr(CodeVersion, "here", lambda: other)
    monkeypatch.setattr(manifest, "_versions", lambda: {"torch": "9.9"})
    warnings = record_resume(path, CONFIG, 4, [], [])
    assert "began with other code" in warnings[0]
    assert "now 9.9" in warnings[1]
    codes = trained_by(read_manifest(path), 9)
    assert [code.commit == "f" * 40 for code in codes] == [False, True]
    # What trained nothing does not count: before the first step, and after the last.
    assert len(trained_by(read_manifest(path), 4)) == 1
    io.write_json(path, {**read_manifest(path), "resumes": []})
    record_resume(path, CONFIG, 0, [], [])
    assert trained_by(read_manifest(path), 9) == [other]


def test_sources_decide_what_is_the_same_code_and_commits_where_they_are_not_known() -> None:
    assert CodeVersion("a", False, "s").same(CodeVersion("b", True, "s"))
    assert not CodeVersion("a", True, "s").same(CodeVersion("a", True, "t"))
    assert CodeVersion("a").same(CodeVersion("a", False, "s"))
    assert not CodeVersion("a").same(CodeVersion("a", True, "s"))
    assert len(CodeVersion.here().source or "") == 64


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        ({"seed": 4}, "seed: 3 then, 4 now"),
        ({"algorithm": {"kind": "mappo", "learning_rate": 0.1}},
         "algorithm.learning_rate: 0.0005 then, 0.1 now"),
        ({"training": {"env_steps": 10}}, "training.env_steps: 9 then, 10 now"),
    ],
)  # fmt: skip
def test_an_edited_configuration_is_told(edit: dict[str, Any], line: str) -> None:
    found = build_manifest(CONFIG, {}, [])
    assert changed_settings(found, CONFIG) == {}
    assert changed_settings(found, changed(name="other", tracking={"project": "p"})) == {}
    assert list(changed_settings(found, changed(**edit)).values()) == [line]


def test_code_that_only_the_manifest_names_is_not_loaded(tmp_path: Path) -> None:
    found = build_manifest(CONFIG, {}, [])
    found["config"]["environment"]["users"]["model"] = "antigravity_of_a_stranger:open"
    [line] = changed_settings(found, CONFIG).values()
    assert "antigravity_of_a_stranger:open then" in line
    assert "antigravity_of_a_stranger" not in sys.modules


def test_manifests_of_older_versions_tell_of_the_seed_alone() -> None:
    assert changed_settings({"seeds": {"run": 3}}, changed(training={"env_steps": 1})) == {}
    assert list(changed_settings({"seeds": {"run": 5}}, CONFIG)) == ["seed"]
    assert changed_settings({}, CONFIG) == {}


def test_other_data_is_told() -> None:
    assert changed_inputs({"inputs": {"data": "1"}}, {"data": "1", "new": "2"}) == []
    assert changed_inputs({"inputs": {"data": "1"}}, {"data": "2"}) == ["data"]


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "3", '{"inputs": []}', '{"resumes": 3}', '{"resumes": [1]}', '{"git": "x"}',
     '{"seeds": {"run": []}}', '{"config": []}', "[" * 100_000, "1" * 5000, "\xff"],
)  # fmt: skip
def test_damaged(tmp_path: Path, text: str) -> None:
    path = tmp_path / "manifest.json"
    with pytest.raises(RunError, match="is missing; restore it, or start a new run"):
        read_manifest(path)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match="restore it, or start a new run: python train") as caught:
        read_manifest(path)
    assert len(str(caught.value).splitlines()) == 1
