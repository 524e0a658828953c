"""The fuzzer draws the same two thousand inputs on every test run."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.long
def test_bad_input_is_taken_well():
    command = [
        sys.executable,
        "tests/fuzz.py",
        "--minutes",
        "1000",
        "--inputs",
        "2000",
        "--seed",
        "2026",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "0 taken wrongly" in done.stdout


def test_the_fuzzer_notices(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    import fuzz

    from marec_env.errors import ConfigError

    def fail(error):
        def action():
            raise error

        return action

    assert fuzz.verdict(lambda: None) is None
    assert fuzz.verdict(fail(ConfigError("seed: must be at least 0"))) is None
    assert "KeyError" in fuzz.verdict(fail(KeyError("x")))
    assert "empty" in fuzz.verdict(fail(ConfigError(" ")))
    assert "characters" in fuzz.verdict(fail(ConfigError("x" * 3000)))
    assert "SystemExit" in fuzz.verdict(fail(SystemExit(0)))
