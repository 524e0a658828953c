"""``python evaluate.py game CONFIG``: how much there is to gain, from random to oracle play."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agents.commands.shared import (
    ConfigFile,
    Markdown,
    Overrides,
    Replace,
    claim,
    command_line,
    open_runs,
    read_environment,
    written,
)
from marec_env.config import MAX_SEED
from marec_env.reporting.table import print_tables

__all__ = ["command"]


def command(
    config: ConfigFile,
    overrides: Overrides = None,
    runs: Annotated[
        list[Path] | None, typer.Option("--run", help="Trained run to place; may be repeated.")
    ] = None,
    budget: Annotated[int, typer.Option(min=2, help="Static decisions tried per search.")] = 192,
    search_sessions: Annotated[int, typer.Option(min=2, help="Sessions of each try.")] = 256,
    seeds: Annotated[int, typer.Option(min=1, help="Searches for clicks, and as many for F.")] = 3,
    sessions: Annotated[int, typer.Option(min=2, help="Held-out sessions.")] = 1024,
    cohort: Annotated[int, typer.Option(min=0, max=MAX_SEED - 1, help="Their seed.")] = 1_000_003,
    output: Annotated[Path, typer.Option(help="The report, as JSON.")] = Path("game.json"),
    markdown: Markdown = None,
    replace: Replace = False,
) -> None:
    """Measure random, hand-set and searched static play, the oracles, trained runs and controls.

    The controls of a run are its team shown other sessions' observations (shuffled), and its mean
    action in every request (frozen): if they do as well, what it observed was of no use.
    """
    from agents.runs.environment import input_hashes
    from agents.studies.headroom import LevelsPlan, levels_table, measure_levels
    from marec_env.io import write_json, write_text
    from marec_env.reporting.page import Section, render_markdown
    from marec_env.world import build_world

    claim(output, markdown, replace=replace)
    run, environment = read_environment(config, overrides)
    plan = LevelsPlan(
        search_budget=budget,
        search_sessions=search_sessions,
        search_seeds=tuple(range(seeds)),
        search_cohort=cohort + 1,
        sessions=sessions,
        cohort=cohort,
    )
    trained = {f"trained: {name}": one.policy for name, one in open_runs(runs or []).items()}
    report = measure_levels(build_world(environment), plan, trained)
    report["inputs"] = input_hashes(run)
    write_json(output, report)
    table = levels_table(report)
    print_tables([table])
    written(output)
    if markdown is not None:
        parts = Section("Policies", (table,)), Section("Made by", verbatim=(command_line(),))
        lead = ("Mean ± one standard error over held-out sessions.",)
        write_text(markdown, render_markdown("What there is to gain", lead, (), parts))
        written(markdown)
