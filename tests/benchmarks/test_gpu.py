"""The GPU's benchmark works where there is none."""

import json

import pytest
import torch

from benchmarks.gpu import main


def test_every_row_is_measured_at_tiny_sizes(tmp_path):
    out = tmp_path / "gpu.json"
    assert main(["--cpu-smoke", "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    assert set(report) >= {"card", "commit", "versions", "tables", "seconds"}
    rows = [row for table in report["tables"].values() for row in table]
    assert len(report["tables"]) == 6 and len(rows) > 25
    assert [row for row in rows if "failed" in row] == []
    play = next(row for row in rows if row["what"] == "this device against the CPU")
    assert play["equal_rewards_after_40"] == 1.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_a_line(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "gpu.json")]) == 0
    assert capsys.readouterr().out.startswith("no CUDA device here")
    assert not list(tmp_path.iterdir())
