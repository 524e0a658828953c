"""What a command answers where files cannot be used."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from agents.entry import USER_ERROR, run_command

ROOT = Path(__file__).parents[2]
LONG = "x" * 300


def raising(error):
    def action() -> int:
        raise error

    return action


def test_a_file_that_cannot_be_used_is_a_line(capsys):
    error = OSError(errno.EACCES, "Permission denied", "there\x1b.csv")
    assert run_command(raising(error)) == USER_ERROR
    assert capsys.readouterr().err == "error: there\\x1b.csv: permission denied\n"
    assert (
        run_command(raising(OSError(errno.ENAMETOOLONG, "File name too long", LONG))) == USER_ERROR
    )
    assert len(capsys.readouterr().err) < 300
    assert run_command(raising(BrokenPipeError(errno.EPIPE, "Broken pipe"))) == 0
    with pytest.raises(OSError, match="no name"):
        run_command(raising(OSError("no name")))


@pytest.mark.parametrize("arguments", [[LONG], ["run", LONG], ["equilibrium", LONG]])
def test_names_too_long_for_a_file_are_refused(arguments):
    done = subprocess.run(
        [sys.executable, "evaluate.py", *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == USER_ERROR
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ")
