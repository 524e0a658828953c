"""The laboratory's commands on one run or configuration; ``equilibrium`` has a file of its own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from agents.commands.shared import (
    Cohort,
    ConfigFile,
    Markdown,
    Overrides,
    Replace,
    claim,
    command_line,
    open_runs,
    read_environment,
    tell,
    written,
)
from marec_env.config import MAX_SEED
from marec_env.errors import ConfigError
from marec_env.reporting.table import print_tables, table_console

# Heavy imports wait until a command is run, so that --help is quick.


def calibration(
    config: ConfigFile,
    overrides: Overrides = None,
    output: Annotated[
        Path, typer.Option(help="Folder for calibration.json and calibration.html.")
    ] = Path("calibration"),
    sessions: Annotated[int, typer.Option(min=2, help="Simulated sessions a batch.")] = 1024,
    reference: Annotated[
        Literal["llm"] | None,
        typer.Option(
            help="llm: also ask environment.text.model to play users, and compare with what it "
            "picks, if that beats popularity on held-out likes."
        ),
    ] = None,
    personas: Annotated[int, typer.Option(min=2, help="Users that the model plays.")] = 200,
) -> None:
    """Compare simulated users with their log: held-out click model, rates, distributions."""
    from agents.studies.calibration.page import render_page, tables_of
    from agents.studies.calibration.reference import judge_by_model
    from agents.studies.calibration.report import calibrate
    from agents.studies.records import plain
    from marec_env.io import write_json, write_text
    from marec_env.text import Author
    from marec_env.users import make_users
    from marec_env.world import build_world

    places = output / "calibration.json", output / "calibration.html"
    claim(*places, replace=True)  # seconds make it again; what it replaces is told
    earlier = " (in place of an earlier report)" if places[0].exists() else ""
    run, found = read_environment(config, overrides)
    # The report runs on the CPU whatever the run's device: its tensors are small.
    environment = found.model_copy(update={"device": "cpu"})
    if reference and environment.text.model.kind == "template":
        raise ConfigError(
            "--reference llm: environment.text.model.kind is template, which plays no users; "
            "choose openai, gguf, transformers or replay"
        )
    world = build_world(environment)
    report = calibrate(
        world.log,
        world.catalog,
        environment.population,
        make_users(environment.users, world.population, sessions),
        source=environment.data.source,
        slate_size=environment.pipeline.slate_size,
        max_requests=environment.max_requests,
        seed=run.seed,
    )
    if reference:
        judged = judge_by_model(
            world.log,
            world.catalog,
            environment.population,
            Author.of(environment.text, environment.embeddings),
            language=environment.text.language,
            personas=personas,
            slate_size=environment.pipeline.slate_size,
            seed=run.seed,
        )
        report = dataclasses.replace(report, reference=judged)
    write_json(places[0], plain(report))
    write_text(places[1], render_page(report))
    print_tables(tables_of(report))
    written(*places, note=earlier)


def explain(
    run: Annotated[Path, typer.Argument(help="Folder of a run on the marec environment.")],
    session: Annotated[
        int | None,
        typer.Option(min=0, max=MAX_SEED, help="Also explain one slate of this session."),
    ] = None,
    request: Annotated[
        int | None,
        typer.Option(min=0, help="Which request of the session, from 0; by default the middle."),
    ] = None,
    words: Annotated[
        Literal["en", "zh"] | None,
        typer.Option(
            help="Also say to the user of that session why each item is shown, in English or "
            "Chinese; the run's environment.text.model may rephrase."
        ),
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
    from marec_env.evaluation.reasons import reasons
    from marec_env.io import write_json
    from marec_env.text import Author
    from marec_env.world import build_world

    if request is not None and session is None:
        raise ConfigError("--request says which request of a session; give --session N as well")
    if words is not None and session is None:
        raise ConfigError("--words speaks to the user of one session; give --session N as well")
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
        if words is not None:
            author = Author.of(trained.environment.text, trained.environment.embeddings)
            said = reasons(one.facts, world.catalog.titles, words, author)
            console.print()
            for line in said:
                console.print(line, markup=False, highlight=False)
            document |= {"reasons": said}
    write_json(place, plain(document))
    written(place)


def game(
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
    part: Annotated[
        Literal["levels", "ladder"],
        typer.Option(
            help="levels: with controls; ladder: the gap to the oracle split into what is hidden, "
            "what actions cannot express and what was not learned, with a figure."
        ),
    ] = "levels",
    tries: Annotated[
        int,
        typer.Option(
            min=1, help="Part ladder: joint actions tried a request, each with 8 of the ranking's."
        ),
    ] = 16,
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
    from agents.studies.ladder import ladder_figure, measure_ladder
    from marec_env.io import read_json, write_json, write_text
    from marec_env.reporting.page import Section, render_markdown
    from marec_env.world import build_world

    ladder, picture = part == "ladder", output.with_suffix(".svg")
    earlier = (
        read_json(output, dict[str, Any], "; it is no ladder to continue: write elsewhere")
        if ladder and output.is_file() and not replace
        else None
    )
    claim(output, markdown, replace=replace or earlier is not None)
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
    world, inputs = build_world(environment), input_hashes(run)

    def keep(report: dict[str, Any]) -> None:
        write_json(output, report | {"inputs": inputs})

    if ladder:
        report = measure_ladder(world, plan, tries, trained, keep, earlier)
        write_text(picture, ladder_figure(report).svg)
    else:
        report = measure_levels(world, plan, trained)
        keep(report)
    table = levels_table(report)
    print_tables([table])
    written(output, *[picture] * ladder)
    if markdown is not None:
        parts = Section("Policies", (table,)), Section("Made by", verbatim=(command_line(),))
        lead = ("Mean ± one standard error over held-out sessions.",)
        write_text(markdown, render_markdown("What there is to gain", lead, (), parts))
        written(markdown)


def off_policy(
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
