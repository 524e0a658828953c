"""Train a recommender team: ``python train.py CONFIG.yaml [--set a.b=v ...] [--seeds 0-9]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from agents.cli import run


def app(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    sys.exit(run("train", sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    app()
