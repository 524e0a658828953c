"""``python evaluate.py explain RUN``: why the team shows what it shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marec_env.reporting.table import table_console

if TYPE_CHECKING:
    from rich.console import Console

    from agents.studies.explain.average import TeamExplanation
    from agents.studies.explain.request import RequestExplanation

__all__ = ["command"]


def command(
    run: Annotated[Path, typer.Argument(help="Folder of a run on the marec environment.")],
    session: Annotated[
        int | None, typer.Option(min=0, help="Also explain one slate of this session.")
    ] = None,
    request: Annotated[
        int | None,
        typer.Option(min=0, help="Which request of the session, from 0; by default the middle."),
    ] = None,
    sessions: Annotated[
        int, typer.Option(min=2, help="Sessions that the averages are over.")
    ] = 128,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the sessions; by default that of the run.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of explanation.json; the run's by default.")
    ] = None,
) -> None:
    """Explain a trained team on average, and one slate for one user; write explanation.json."""
    from agents.commands.evaluate import load_run_policy
    from agents.learners.policy import TrainedPolicy
    from agents.studies.explain.average import explain_team
    from agents.studies.explain.request import explain_request
    from agents.studies.explain.words import average_sentences, request_sentences
    from marec_env.errors import ConfigError
    from marec_env.io import write_json
    from marec_env.world import build_world

    if request is not None and session is None:
        raise ConfigError("--request says which request of a session; give --session N as well")
    config, environment, policy = load_run_policy(run)
    if not isinstance(policy, TrainedPolicy):
        raise ConfigError(f"{run}: only a trained team of actors can be explained")
    world = build_world(environment)
    cohort_seed = config.evaluation.seed if seed is None else seed
    average = explain_team(
        world, policy, sessions, cohort_seed, lambda line: typer.echo(line, err=True)
    )
    console = table_console()
    print_average(average, console)
    lines = average_sentences(average)
    document = {"average": average.as_dict(), "sentences": lines}
    for line in lines:
        console.print(line, markup=False, highlight=False)
    if session is not None:
        one = explain_request(world, policy, average, session, cohort_seed, request)
        console.print()
        print_request(one, console)
        told = request_sentences(one)
        for line in told:
            console.print(line, markup=False, highlight=False)
        document |= {"request": one.as_dict(), "request_sentences": told}
    place = (output or run) / "explanation.json"
    write_json(place, document)
    typer.echo(f"written: {place}")


def print_average(average: TeamExplanation, console: Console) -> None:
    """Print what each component goes by, and what it is worth."""
    from rich.table import Table

    table = Table(
        title=f"What each component goes by: {average.sessions} sessions, "
        f"{average.requests:,} requests",
        caption="share: of integrated gradients from the average input; the other columns mask the "
        "group: mean change of a decision, items of a slate that are others, and what a session "
        "loses (mean ± half the 95 % interval; * zero lies outside)",
        title_justify="left",
    )
    table.add_column("component")
    table.add_column("inputs")
    for heading in ("share", "decision", f"items of {average.slate_size}", "clicks", "F"):
        table.add_column(heading, justify="right")
    for component in average.components:
        for row, group in enumerate(component.ranked()):
            cells = []
            for paired in group.worth.values():
                gap = paired.difference
                mark = "*" if paired.significant else ""
                cells.append(f"{gap.value:+.2f} ± {(gap.high - gap.low) / 2:.2f}{mark}")
            table.add_row(
                component.agent if row == 0 else "",
                group.name,
                f"{group.share:.0%}",
                f"{group.decision_change:.3f}",
                f"{group.items_changed.value:.2f}",
                *cells,
                end_section=row == len(component.groups) - 1,
            )
    console.print(table)


def print_request(found: RequestExplanation, console: Console) -> None:
    """Print every decision of one request beside the usual one, and its two strongest causes."""
    from rich.table import Table

    table = Table(
        title=f"Decisions of session {found.session}, request {found.request}",
        caption="all attributions of a decision add up to its value less the usual one",
        title_justify="left",
    )
    for heading in ("component", "decision"):
        table.add_column(heading)
    for heading in ("value", "usual"):
        table.add_column(heading, justify="right")
    table.add_column("strongest causes")
    for agent, reasons in found.decisions.items():
        for row, reason in enumerate(reasons):
            causes = sorted(reason.attributions.items(), key=lambda cause: -abs(cause[1]))[:3]
            table.add_row(
                agent if row == 0 else "",
                reason.name,
                f"{reason.value:+.3f}",
                f"{reason.usual:+.3f}",
                ", ".join(f"{name} {value:+.3f}" for name, value in causes),
                end_section=row == len(reasons) - 1,
            )
    console.print(table)
