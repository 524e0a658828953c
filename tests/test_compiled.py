import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from marec_env.compiled import compiled

ROOT = Path(__file__).parents[1]


def _sum_up_to(values, last):
    total = 0.0
    for place in range(last):
        total += values[place]
    return total


def test_a_compiled_function_gives_what_the_function_gives():
    values = np.arange(5.0)
    assert compiled(_sum_up_to)(values, 4) == _sum_up_to(values, 4) == 6.0


def test_a_place_outside_the_array_is_refused():
    with pytest.raises(IndexError):
        compiled(_sum_up_to)(np.arange(5.0), 6)


def test_it_compiles_where_nothing_can_be_kept(monkeypatch):
    njit = numba.njit

    def nowhere(**options):
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", nowhere)
    assert compiled(_sum_up_to)(np.ones(3), 3) == 3.0


KEPT = """
import importlib, sys
from pathlib import Path
from marec_env.compiled import compiled
folder, ending = sys.argv[1:]
sys.path.insert(0, folder)
import kept
print(compiled(kept.number)(1))
if ending:
    files = [*Path(folder, "cache").rglob(f"*.{ending}")]
    for damage in (b"", b"\\x80\\x04garbage", b"[1, 2]", files[0].read_bytes()[:40]):
        for file in files:
            file.write_bytes(damage)
        print(compiled(importlib.reload(kept).number)(1))
"""


def run_kept(folder, before="", damaged=""):
    """Return what a process prints that compiles, and again whenever it damaged these files."""
    environment = {**os.environ, "MAREC_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    command = f'{before} exec "{sys.executable}" -B -c \'{KEPT}\' "{folder}" "{damaged}"'
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def write_kept(folder, result):
    (folder / "kept.py").write_text(f"def number(x):\n    return x + {result - 1}\n")


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
def test_damaged_code_is_compiled_anew(tmp_path, ending):
    write_kept(tmp_path, 5)
    assert run_kept(tmp_path, damaged=ending).split() == ["5"] * 5


def test_a_full_disk_neither_stops_nor_revives_older_code(tmp_path):
    write_kept(tmp_path, 5)
    assert run_kept(tmp_path) == "5"
    write_kept(tmp_path, 700)
    assert run_kept(tmp_path, before="ulimit -f 4;") == "700"
    assert run_kept(tmp_path) == "700"


def test_code_that_somebody_else_could_have_written_is_not_loaded(tmp_path):
    """What numba keeps are pickles: loading one runs it."""
    write_kept(tmp_path, 5)
    planted = tmp_path / "planted"
    planted.mkdir()
    place = tmp_path / "cache" / "compiled"
    place.mkdir(parents=True)
    place.chmod(0o777)
    assert run_kept(tmp_path, before=f'export NUMBA_CACHE_DIR="{planted}";') == "5"
    assert list(planted.iterdir()) == [] == list(place.iterdir())
    place.chmod(0o700)
    assert run_kept(tmp_path, before=f'export NUMBA_CACHE_DIR="{planted}";') == "5"
    assert list(planted.iterdir()) == [] != list(place.iterdir())


def test_importing_the_environment_does_not_load_numba():
    code = "import marec_env.simulator, sys; print('numba' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "False"
