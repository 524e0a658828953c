"""``python evaluate.py explain RUN``: why the team shows what it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from agents.commands.shared import Cohort, Replace, claim, open_runs, tell, written
from marec_env.config import MAX_SEED
from marec_env.errors import ConfigError
from marec_env.reporting.table import print_tables, table_console

__all__ = ["command"]


def command(
    run: Annotated[Path, typer.Argument(help="Folder of a run on the marec environment.")],
    session: Annotated[
        int | None,
        typer.Option(min=0, max=MAX_SEED, help="Also explain one slate of this session."),
    ] = None,
    request: Annotated[
        int | None,
        typer.Option(min=0, help="Which request of the session, from 0; by default the middle."),
    ] = None,
    sessions: Annotated[
        int, typer.Option(min=2, help="Sessions that the averages are over.")
    ] = 128,
    seed: Cohort = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of explanation.json; the run's by default.")
    ] = None,
    replace: Replace = False,
) -> None:
    """Explain a trained team on average, and one slate for one user; write explanation.json."""
    from agents.studies.explain.average import average_sentences, average_table, explain_team
    from agents.studies.explain.request import (
        explain_request,
        find_request,
        request_sentences,
        request_table,
    )
    from agents.studies.records import plain
    from marec_env.io import write_json
    from marec_env.world import build_world

    if request is not None and session is None:
        raise ConfigError("--request says which request of a session; give --session N as well")
    (trained,) = open_runs([run]).values()
    place = (output or run) / "explanation.json"
    claim(place, replace=replace)
    world, policy = build_world(trained.environment), trained.policy
    cohort = trained.config.evaluation.seed if seed is None else seed
    if session is not None:
        request, _ = find_request(world, policy, session, cohort, request)  # or refused now
    average = explain_team(world, policy, sessions, cohort, tell)
    console = table_console()
    print_tables([average_table(average)], console)
    lines = average_sentences(average)
    document: dict[str, Any] = {"average": average, "sentences": lines}
    for line in lines:
        console.print(line, markup=False, highlight=False)
    if session is not None:
        one = explain_request(world, policy, average, session, cohort, request)
        told = request_sentences(one)
        console.print()
        print_tables([request_table(one)], console)
        for line in told:
            console.print(line, markup=False, highlight=False)
        document |= {"request": one, "request_sentences": told}
    write_json(place, plain(document))
    written(place)
