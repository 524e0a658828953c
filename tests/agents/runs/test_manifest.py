from __future__ import annotations

from pathlib import Path

import pytest

from agents.runs.manifest import build_manifest, check_same_inputs, read_manifest, record_resume
from marec_env import io
from marec_env.errors import RunError


def test_what_a_manifest_holds(tmp_path: Path) -> None:
    manifest = build_manifest(seed=3, config_hash="ab", inputs={"data": "1"}, command=["train.py"])
    assert manifest["versions"]["torch"].startswith("2.")
    assert len(manifest["git"]["commit"]) == 40
    assert manifest["git"]["dirty"] in (True, False)
    assert manifest["seeds"] == {"run": 3}
    assert manifest["hardware"]["cpus"] >= 1
    path = tmp_path / "manifest.json"
    io.write_json(path, manifest)
    record_resume(path, 40, ["training.env_steps=80"])
    again = read_manifest(path)
    [resume] = again.pop("resumes")
    assert resume["env_steps"] == 40
    assert again == {key: value for key, value in manifest.items() if key != "resumes"}


def test_other_data_is_refused() -> None:
    check_same_inputs({"inputs": {"data": "1"}}, {"data": "1", "new": "2"})
    with pytest.raises(RunError, match="data changed since the run began"):
        check_same_inputs({"inputs": {"data": "1"}}, {"data": "2"})


@pytest.mark.parametrize(("text", "reason"), [("{", "cannot be read"), ("[]", "not a manifest")])
def test_damaged(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "manifest.json"
    with pytest.raises(RunError, match="is missing"):
        read_manifest(path)
    path.write_text(text)
    with pytest.raises(RunError, match=reason):
        read_manifest(path)
