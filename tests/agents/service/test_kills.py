"""A service that is killed under load keeps what it said it had kept."""

import asyncio
import runpy
from pathlib import Path

import pytest

pytest.importorskip("uvicorn")

ROOT = Path(__file__).parents[3]


def test_killed_under_load(folder: Path, tmp_path: Path) -> None:
    kills = runpy.run_path(str(ROOT / "benchmarks" / "service.py"))["kills"]
    found = asyncio.run(kills(folder, tmp_path / "service.sqlite", times=2, sessions=4))
    assert found["kills"] == 2 and found["events"] > 20 and found["slates"] > 10
