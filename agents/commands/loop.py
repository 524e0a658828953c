"""The loop's steps as commands: visit, events, learn (``train --from-log``), value, and loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.commands.shared import Overrides, Replace, claim, read_environment, tell, written
from marec_env.config import MAX_SEED
from marec_env.errors import ConfigError, RunError
from marec_env.reporting.table import TextTable, print_tables

if TYPE_CHECKING:
    from agents.loop.rounds import LoopConfig
    from agents.loop.valuation import Valuation
    from agents.loop.visit import Visit
    from agents.service.bundle import Bundle
    from marec_env.world import World

# Heavy imports wait until a command is run, so that --help is quick.

Url = Annotated[str, typer.Argument(help="Where the service is, e.g. http://127.0.0.1:8080.")]
KeyFile = Annotated[
    Path | None, typer.Option(help="File whose first line is the key that the service asks for.")
]
Idle = Annotated[
    float, typer.Option(min=0.0, help="Seconds without a request after which a user has left.")
]
LoopFile = Annotated[
    Path | None, typer.Option("--config", help="YAML of the loop's settings: docs/loop.md.")
]


def _key(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        lines = file.read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--key-file {file}: cannot be read ({error})") from error
    if not lines:
        raise ConfigError(f"--key-file {file}: is empty; its first line is the key")
    return lines[0]


def visit(
    url: Url,
    config: Annotated[
        Path, typer.Argument(help="YAML of a run, or a preset: its users are the visitors.")
    ] = Path("default"),
    overrides: Overrides = None,
    sessions: Annotated[int, typer.Option(min=1, help="Sessions in all.")] = 100,
    concurrency: Annotated[
        int, typer.Option(min=1, max=10_000, help="Sessions under way at once.")
    ] = 50,
    first: Annotated[int, typer.Option(min=0, help="Number of the first session.")] = 0,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of the cohort.")] = 1,
    policy: Annotated[
        str | None, typer.Option(help="The team that is to answer; else as the service shares out.")
    ] = None,
    key_file: KeyFile = None,
    output: Annotated[Path | None, typer.Option(help="Also write what came of it as JSON.")] = None,
    replace: Replace = False,
) -> None:
    """Let simulated users visit a service: the same users and luck as in the simulator."""
    from agents.loop.visit import Service
    from agents.loop.visit import visit as visited
    from marec_env.io import write_json
    from marec_env.world import build_world

    claim(output, replace=replace)
    _, environment = read_environment(config, overrides)
    world = build_world(environment.model_copy(update={"device": "cpu"}))
    numbers = range(first, first + sessions)

    async def go() -> Visit:
        async with Service(url, _key(key_file), concurrency) as service:
            return await visited(service, world, numbers, seed, concurrency, policy)

    found = asyncio.run(go())
    print_tables([_visits_table(found)])
    if output is not None:
        columns = ("clicks", "length", "left", "policy", "seconds")
        document = {name: getattr(found, name) for name in columns}
        write_json(output, {**document, "first": first, "seed": seed, "waits": _waits(found)})
        written(output)


def _waits(found: Visit) -> dict[str, float]:
    return {name: found.quantile(share) for name, share in (("p50", 0.5), ("p99", 0.99))}


def _visits_table(found: Visit) -> TextTable:
    from marec_env.evaluation.statistics import mean_estimate

    rows = []
    for name in dict.fromkeys(found.policy):
        mine = [k for k, policy in enumerate(found.policy) if policy == name]
        clicks = [found.clicks[k] for k in mine]
        told = str(mean_estimate(clicks)) if len(mine) > 1 else f"{clicks[0]:.0f}"
        requests = sum(found.length[k] for k in mine)
        rows.append((name, f"{len(mine):,}", told, f"{requests / len(mine):.1f}"))
    waits, requests = _waits(found), len(found.waits)
    return TextTable(
        f"{len(found.clicks):,} sessions, {requests:,} requests in {found.seconds:.1f} s "
        f"({requests / found.seconds:,.0f} a second)",
        ("team", "sessions", "clicks a session", "requests a session"),
        rows,
        (f"a recommendation took {1e3 * waits['p50']:.0f} ms (99 %: {1e3 * waits['p99']:.0f} ms)",),
    )


def events(
    source: Annotated[str, typer.Argument(help="URL of a service, or its --database.")],
    out: Annotated[Path, typer.Argument(help="The exposure log to write (.safetensors).")],
    policy: Annotated[
        list[str] | None, typer.Option(help="Only sessions of this version; may be repeated.")
    ] = None,
    idle: Idle = 1800.0,
    longest: Annotated[
        int, typer.Option(min=1, help="Requests after which a session ends by itself.")
    ] = 40,
    key_file: KeyFile = None,
    replace: Replace = False,
) -> None:
    """Read what a service has logged into an exposure log, to learn from and to value teams on."""
    from agents.loop.events import exposure_log

    claim(out, replace=replace)
    rows = _exposures(source, _key(key_file), 0)
    log = exposure_log(rows, time.time(), idle, longest, policy)
    log.save(out)
    print(
        f"{len(log.key):,} sessions, {int(log.length.sum()):,} requests, "
        f"{float(log.clicks_a_session().mean()):.2f} clicks a session"
    )
    written(out)


def _exposures(source: str, key: str | None, after: int) -> list[dict[str, Any]]:
    """Return all that was logged after a sequence number."""
    if not source.startswith(("http://", "https://")):
        from agents.service.databases import place_of, places_of
        from agents.service.store import Store
        from agents.service.telling import exposure_told

        places, rows = places_of(place_of(source)), list[dict[str, Any]]()
        if not places:
            raise RunError(f"{source}: there is no such database; name the service's --database")
        for place in places:
            store = Store(place, read=True)  # the service may be at work on it
            try:
                rows += [exposure_told(one, True) for one in store.exposures(after, 1 << 62)]
            finally:
                store.close()
        return sorted(rows, key=lambda row: row["sequence"])
    from agents.loop.events import logged
    from agents.loop.visit import Service

    async def read() -> list[dict[str, Any]]:
        async with Service(source, key) as service:
            return await logged(service, after)

    return asyncio.run(read())


def _loop_config(path: Path | None, overrides: Sequence[str] | None) -> LoopConfig:
    from agents.loop.rounds import LoopConfig
    from marec_env.config.loader import load, load_text

    if path is None:
        return load_text("", "the loop's settings", LoopConfig, overrides or [])
    return load(path, LoopConfig, overrides or [])


def learn(
    log: Path, bundle: Path, out: Path, config: Path | None, overrides: Sequence[str],
    users: Path | None,
) -> int:  # fmt: skip
    """Learn from an exposure log, beginning with a bundle's team; write a bundle (``out``) and what
    the candidate is estimated to gain, or what its privacy is (``out``.json).

    Args:
        log: what was served.
        bundle: who served it.
        out: the new bundle.
        config, overrides: the loop's settings.
        users: YAML of a run, or preset, whose users are fitted to the log to learn on them.

    Raises:
        MarecError: an input is at fault.
    """
    from dataclasses import replace

    from agents.loop.exposure import ExposureLog
    from agents.loop.learning import keep_critics, kept_critics
    from agents.loop.limits import rules_of
    from agents.loop.private import learn_privately
    from agents.loop.rounds import consider
    from agents.service.bundle import load_bundle, save_bundle
    from marec_env.io import write_json

    told = out.with_name(f"{out.name}.json")
    claim(told, replace=False)
    settings, begun = _loop_config(config, overrides), load_bundle(bundle)
    if settings.privacy is not None:
        if users is not None:
            raise ConfigError(
                "--users fits users to the log without noise, and the gate values without; leave "
                "privacy or --users out"
            )
        private = learn_privately(ExposureLog.load(log), begun.networks, settings)
        lines = [line for line in (begun.privacy, private.line) if line]
        made = replace(begun, name=out.name, version="", policy=private.policy)
        save_bundle(replace(made, privacy="; ".join(lines)), out)
        write_json(told, {"privacy": private.statement})
        tell(f"{out.name}: {private.line}; not valued: an estimate on the log would tell of it")
        written(out, told)
        return 0
    rules, world = rules_of(begun), _world(users, begun)
    served, critics = ExposureLog.load(log), kept_critics(bundle)
    found = consider(served, begun.networks, settings, critics, rules, world)
    save_bundle(replace(begun, name=out.name, version="", policy=found.policy), out)
    keep_critics(out, found.critics)
    write_json(told, found.as_json())
    print_tables([_value_table(out.name, found.valuation)])
    tell(f"{out.name}: {found}")
    written(out, told)
    return 0


def _world(users: Path | None, team: Bundle) -> World | None:
    """Return the world of a configuration's users, in front of the team's pipeline."""
    if users is None:
        return None
    from marec_env.world import build_world

    _, environment = read_environment(users, None)
    return build_world(environment.model_copy(update={"pipeline": team.pipeline, "device": "cpu"}))


def _value_table(name: str, found: Valuation) -> TextTable:
    rows = [
        (component, kind, str(one) if one.count else f"{one.value:.3f}")
        for component, estimates in found.by_estimator.items()
        for kind, one in estimates.items()
    ]
    rows += [
        ("team", "DR, gain a request", str(found.gain)),
        ("team", f"DR, gain in clicks to go ({found.served_to_go:.2f})", str(found.gain_to_go)),
    ]
    rows += [
        (f"{rule} ({one.served:.3f})", "DR, more broken", str(one.more))
        for rule, one in found.broken.items()
    ]
    return TextTable(
        f"{name}: {found.requests:,} requests, worth {found.effective:,.0f} of its own; "
        f"served: {found.served:.3f} clicks a request",
        ("component", "estimator", "clicks a request"),
        rows,
    )


def value(
    log: Annotated[Path, typer.Argument(help="Exposure log, on which it has not learned.")],
    bundle: Annotated[Path, typer.Argument(help="Bundle of the team to value.")],
    discount: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of clicks a request later.")
    ] = 0.8,
    output: Annotated[Path | None, typer.Option(help="Also write the estimates as JSON.")] = None,
    replace: Replace = False,
) -> None:
    """Estimate from a log what another team would earn: IPS, SNIPS, DM and doubly robust."""
    from agents.learners.policy import TrainedPolicy
    from agents.loop.exposure import ExposureLog
    from agents.loop.limits import rules_of
    from agents.loop.valuation import value as valued
    from agents.service.bundle import load_bundle
    from marec_env.io import write_json

    claim(output, replace=replace)
    team = load_bundle(bundle)
    if not isinstance(team.policy, TrainedPolicy):
        raise ConfigError(f"{bundle} has no trained team; its actions have no probabilities")
    held = ExposureLog.load(log)
    found = valued(held, team.policy, discount, broken=rules_of(team)(held))
    print_tables([_value_table(team.name, found)])
    if output is not None:
        write_json(output, found.as_json())
        written(output)


def loop(
    url: Url,
    bundle: Annotated[Path, typer.Argument(help="Bundle that is served, on this machine too.")],
    config: LoopFile = None,
    overrides: Overrides = None,
    every: Annotated[float, typer.Option(min=0.0, help="Seconds between rounds.")] = 3600.0,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds; by default no end.")] = None,
    idle: Idle = 1800.0,
    users: Annotated[
        Path | None,
        typer.Option(
            metavar="CONFIG",
            help="Learn in the simulator, on the users of this run's YAML, or preset, fitted to "
            "the log; by default from the log alone.",
        ),
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="File of what was done; by default beside the bundle.")
    ] = None,
    key_file: KeyFile = None,
) -> None:
    """Learn from what a service logs, over and over: gate, canary share, swap or roll back."""
    from agents.loop.schedule import Schedule
    from agents.service.bundle import load_bundle

    settings = _loop_config(config, overrides)
    if settings.privacy is not None:
        raise ConfigError(
            "privacy: the loop's gate, canary and watch for drift judge by what visitors did, "
            "without noise; learn with 'marec train --from-log', or leave privacy out"
        )
    world = _world(users, load_bundle(bundle)) if users else None
    file = state or bundle.with_name(f"{bundle.name}.loop.json")
    schedule = Schedule(url, bundle, settings, file, idle, _key(key_file), world)
    done = 0
    while True:
        tell(asyncio.run(schedule.round()))
        done += 1
        if done == rounds:
            return
        time.sleep(every)
