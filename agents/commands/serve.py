"""A trained team out of its run: ``marec export`` and ``marec serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["export"]

# Heavy imports wait until a command is run, so that --help is quick.


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run on the marec environment.")],
    out: Annotated[Path, typer.Argument(help="Folder of the bundle; new or empty.")],
    best: Annotated[
        bool, typer.Option("--best", help="The policy of the best evaluation, not the newest.")
    ] = False,
    hand_set: Annotated[
        bool,
        typer.Option("--hand-set", help="Every component plays its hand-set default instead."),
    ] = False,
) -> None:
    """Write a bundle: policy, items and what is known of them, without the log and its users."""
    from agents.service.bundle import export_run

    bundle = export_run(run, out, best=best, hand_set=hand_set)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: version {bundle.version}, {size / 1e6:.1f} MB; {bundle!r}")
