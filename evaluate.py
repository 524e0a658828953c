"""Evaluate and compare: ``python evaluate.py RUN...``, or one of the subcommands."""

from __future__ import annotations

import importlib
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: threads that compete are slower

import typer

from agents.entry import run_command, without_flags
from marec_env.errors import RunError

SUBCOMMANDS = {
    "run": ("evaluate:command", "A trained team beside baselines (the default)."),
    "compare": ("compare:command", "Several runs: table, JSON, CSV and a page."),
    "explain": ("studies:explain", "Why a trained team shows what it shows."),
    "off-policy": (
        "studies:off_policy",
        "What a policy would earn, from logs alone.",
    ),
    "calibration": ("studies:calibration", "Simulated users against the log."),
    "game": (
        "studies:game",
        "How much there is to gain, from random play to oracles.",
    ),
    "equilibrium": (
        "equilibrium:command",
        "How far play is from a Nash equilibrium.",
    ),
}
"""Subcommand: its module and function below agents.commands, and a line of help."""


def _app(wanted: str) -> typer.Typer:
    """Return the command line; only the wanted subcommand's module is imported."""
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Evaluate runs, compare them, and measure users and equilibria. "
        "`evaluate.py RUN...` is short for `evaluate.py run RUN...`. With --allow-plugins a file "
        "outside this folder may name code to run.",
    )

    @app.callback()
    def _several() -> None:
        """Keep subcommands subcommands."""

    for name, (place, help_line) in SUBCOMMANDS.items():
        if name == wanted:
            module, _, function = place.partition(":")
            command = getattr(importlib.import_module(f"agents.commands.{module}"), function)
        else:

            def command() -> None: ...

        app.command(name, help=help_line)(command)
    return app


def main(arguments: list[str]) -> int:
    """Run the command line and return its exit code."""
    arguments = without_flags(arguments)
    first = arguments[0] if arguments else ""
    if first and not first.startswith("-") and first not in SUBCOMMANDS and os.path.exists(first):
        arguments = ["run", *arguments]
    wanted = arguments[0] if arguments else ""

    def action() -> int:
        if wanted and not wanted.startswith("-") and wanted not in SUBCOMMANDS:
            raise RunError(
                f"'{wanted}' is neither a run's folder nor one of: {', '.join(SUBCOMMANDS)}"
            )
        return _app(wanted)(arguments, standalone_mode=True) or 0

    return run_command(action)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
