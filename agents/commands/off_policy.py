"""``python evaluate.py off-policy RUN``: what another policy would earn, told from logs alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agents.commands.shared import Replace, claim, open_runs, written
from marec_env.config import MAX_SEED
from marec_env.errors import ConfigError
from marec_env.reporting.table import print_tables

__all__ = ["command"]


def command(
    run: Annotated[Path, typer.Argument(help="Run whose team makes the log, exploring.")],
    target: Annotated[
        Path | None,
        typer.Option(help="Run whose team is to be valued; by default the same one."),
    ] = None,
    exploration: Annotated[
        float | None,
        typer.Option(
            min=0.05,
            max=20.0,
            help="How much the target explores beside what its actors say; by default 1, "
            "or 0.8 where target and log are of one run.",
        ),
    ] = None,
    sessions: Annotated[int, typer.Option(min=64, help="Sessions of the log.")] = 1024,
    requests: Annotated[int, typer.Option(min=1, help="Requests of each session.")] = 8,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of the sessions.")] = 1,
    output: Annotated[
        Path | None, typer.Option(help="Folder of off_policy.json; the run's by default.")
    ] = None,
    replace: Replace = False,
) -> None:
    """Estimate a target from a log's propensities; judge the estimates by the simulator's truth."""
    from agents.studies.off_policy import judge
    from agents.studies.off_policy_logs import record_logs
    from marec_env.io import write_json
    from marec_env.world import build_world

    opened = [*open_runs([run] if target is None else [run, target]).values()]
    logging, wanted = opened[0], opened[-1]
    place = (output or run) / "off_policy.json"
    claim(place, replace=replace)
    if wanted.environment.pipeline != logging.environment.pipeline:
        raise ConfigError(f"{target} has another pipeline than {run}; components must be the same")
    factor = (0.8 if target is None else 1.0) if exploration is None else exploration
    world = build_world(logging.environment)
    logs = record_logs(world, logging.policy, wanted.policy, sessions, requests, seed, factor)
    judged = {}
    for name, log in logs.items():
        judged[name], table = judge(name, log)
        print_tables([table])
    names = {"log": str(run), "target": str(target or run)}
    write_json(place, {**names, "exploration": factor, "seed": seed, "logs": judged})
    written(place)
