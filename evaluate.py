"""Evaluate and compare: ``python evaluate.py RUN...``, or one of the subcommands."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: threads that compete are slower

from agents.cli import dispatch

SUBCOMMANDS = {
    "run": "evaluate",
    "compare": "compare",
    "suite": "suite",
    "explain": "explain",
    "off-policy": "off-policy",
    "calibration": "calibration",
    "privacy": "privacy",
    "game": "game",
    "equilibrium": "equilibrium",
}
"""Commands of ``marec`` by their names here."""


def main(arguments: list[str]) -> int:
    """Run the command line and return its exit code."""
    return dispatch("python evaluate.py", SUBCOMMANDS, arguments, of_runs="evaluate")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
