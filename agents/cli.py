"""The command line: ``marec COMMAND``, of which train.py and evaluate.py are parts.

A command is a function whose options typer reads off; its module is imported when it is asked for.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import typer

from agents.entry import FLAG, USER_ERROR, Overrides, run_command, without_flags
from marec_env import __version__
from marec_env.errors import ConfigError, RunError, unknown_name, visible
from marec_env.registry import search_in
from marec_env.shipped import preset_names, typed

COMMANDS = {
    "train": ("agents.cli:train", "Train a team, then compare it with baselines."),
    "evaluate": ("agents.commands.evaluate:command", "A trained team beside baselines."),
    "compare": ("agents.commands.compare:command", "Several runs: table, JSON, CSV and a page."),
    "suite": ("agents.commands.suite:command", "Tasks that tell learners apart: a leaderboard."),
    "tune": ("agents.tune:command", "Search settings: a grid, at random, or with Optuna."),
    "export": ("agents.commands.serve:export", "A trained team as a folder to recommend from."),
    "serve": ("agents.commands.serve:serve", "Recommendations over HTTP, from a bundle."),
    "configs": ("agents.commands.shipped:configs", "Presets and examples: list or print them."),
    "assets": ("agents.commands.shipped:assets", "Install the encoder's weights and MovieLens."),
    "explain": ("agents.commands.studies:explain", "Why a team shows what it shows."),
    "off-policy": ("agents.commands.studies:off_policy", "What a policy would earn, from logs."),
    "calibration": ("agents.commands.studies:calibration", "Simulated users against the log."),
    "data convert": ("agents.commands.data:convert", "Published files as a log of your own."),
    "data check": ("agents.commands.data:check", "What a log holds, and what becomes of it."),
    "data anonymise": ("agents.commands.privacy:anonymise", "A log without its users' names."),
    "data forget": ("agents.commands.privacy:forget", "Users taken out of a log."),
    "privacy": ("agents.commands.privacy:command", "What is learned of users, against noise."),
    "visit": ("agents.commands.loop:visit", "Simulated users visit a service."),
    "events": ("agents.commands.loop:events", "What a service has logged, to learn from."),
    "value": ("agents.commands.loop:value", "What a team would earn, from a service's log."),
    "loop": ("agents.commands.loop:loop", "Learn from a service's log, gate, canary, swap."),
    "game": ("agents.commands.studies:game", "How much there is to gain, from random to oracles."),
    "equilibrium": ("agents.commands.equilibrium:command", "How far play is from an equilibrium."),
}
"""Command: where its function is, and a line of help."""
_MORE = (
    "--allow-plugins lets a file outside this folder name code to run. In a checkout, 'make help' "
    "tells how to set up, train and test."
)
# typer carries its own click, which it does not name: the error of wrong usage is known by this.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``marec`` and return its exit code."""
    names = {name: name for name in COMMANDS}
    return dispatch("marec", names, sys.argv[1:] if arguments is None else arguments)


def dispatch(
    program: str, names: Mapping[str, str], arguments: Sequence[str], of_runs: str | None = None
) -> int:
    """Run the command that the first argument names and return its exit code.

    Args:
        program: as it was typed.
        names: commands by the names they have there.
        arguments: of the command line.
        of_runs: the command that is meant where a path comes first.
    """
    first, rest = (arguments[0], list(arguments[1:])) if arguments else ("", [])
    if first in names:
        return run(names[first], rest)
    if group := {n.partition(" ")[2]: c for n, c in names.items() if n.startswith(f"{first} ")}:
        return dispatch(f"{program} {first}", group, rest)
    if first == "--version":
        print(f"marec {__version__}")
    elif first in ("", "-h", "--help", "help"):
        lines = [f"  {name:<12} {COMMANDS[command][1]}" for name, command in names.items()]
        short = f"\n{program} RUN... is short for {program} run RUN..." if of_runs else ""
        print("\n".join([f"Usage: {program} COMMAND ...", *lines, short]))
        print(f"{program} COMMAND --help tells its options. {_MORE}")
    elif first != FLAG and of_runs and not first.startswith("-") and os.path.exists(first):
        return run(of_runs, list(arguments))
    elif first == FLAG and rest:
        return dispatch(program, names, [*rest, FLAG], of_runs)
    else:
        return run_command(lambda: _unknown(first, names))
    return 0 if first else USER_ERROR


def _unknown(first: str, names: Mapping[str, str]) -> int:
    if "run" in names:
        raise RunError(f"'{first}' is neither a run's folder nor one of: {', '.join(names)}")
    if (Path(first) / "config.yaml").is_file():
        raise ConfigError(f"'{first}' is a run: {typed('evaluate')} {first}")
    if first.endswith(".yaml") or first in preset_names():
        raise ConfigError(f"'{first}' is a configuration: {typed('train')} {first}")
    raise ConfigError(unknown_name("command", first, names))


def run(command: str, arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; wrong usage is answered in a line."""
    arguments = without_flags(list(arguments))
    with suppress(OSError):  # a working directory that is gone holds no code either
        search_in(os.getcwd())
    if command != "train":
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: threads that compete
    place, _, name = COMMANDS[command][0].partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(place), name)

    @functools.wraps(function)
    def told(*args: Any, **options: Any) -> int:
        return run_command(lambda: function(*args, **options) or 0)

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(epilog=_MORE)(told)
    try:
        return app(arguments, prog_name=typed(command), standalone_mode=False) or 0
    except _UsageError as error:
        print(f"error: {visible(_answer(command, arguments, error))}", file=sys.stderr)
        return USER_ERROR


def _answer(command: str, arguments: Sequence[str], error: Any) -> str:
    """Return what is wrong with a command line, and the right form of a known slip."""
    program, option = typed(command), getattr(error, "option_name", "")
    said = error.format_message()
    split = [one.partition("=") for one in arguments]
    pairs = [(n, v, after) for (n, _, v), after in zip_longest(split, arguments[1:])]
    if "extra argument" in said and (slips := [*filter(None, map(_as_setting, arguments))]):
        return slips[0]
    value = next((v or after for name, v, after in pairs if name == option), None)
    if option in ("--config", "--preset"):
        return f"a configuration needs no {option}: {program} {value or 'quick'}"
    if option and (setting := _setting(option.lstrip("-").replace("-", "_"))):
        return f"{option} is a setting; give it as --set {setting}={value or 'VALUE'}"
    return f"{said}; {program} --help tells how"


def _as_setting(argument: str) -> str | None:
    """Return how a setting is given, where one stands without ``--set``."""
    name, _, value = argument.partition("=")
    if not value or not re.fullmatch(r"[a-z_]+(\.\w+)*", name):
        return None
    return f"settings are given as --set {_setting(name) or name}={value}"


def _setting(name: str) -> str | None:
    """Return the whole of a setting's key, of which the last part is given."""
    from agents.config import RunConfig
    from marec_env.config.fields import all_paths

    return next((path for path in all_paths(RunConfig) if f".{path}".endswith(f".{name}")), None)


def train(
    configs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG]...",
            help="YAML files or presets, e.g. configs/default.yaml or quick; several are compared "
            "at the end.",
        ),
    ] = None,
    overrides: Overrides = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Continue the run in this folder.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run's folder; must be new or empty.")
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="A-B", help="Train several seeds of each, for example 0-9."),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(
            min=1,
            help="Runs at once on the CPU, each in a process with one thread; on CUDA the seeds of "
            "a configuration train as one batch.",
        ),
    ] = min(2, os.cpu_count() or 1),
    group: Annotated[str | None, typer.Option(help="Group in the dashboards.")] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Begin with the networks of this run's last checkpoint; with --from-log: of this "
            "bundle.",
        ),
    ] = None,
    from_log: Annotated[
        Path | None,
        typer.Option(
            metavar="EVENTS",
            help="Learn from this exposure log alone (marec events), beginning with the bundle of "
            "--init-from; --run-dir is the new bundle, [CONFIG] and --set the loop's settings.",
        ),
    ] = None,
    users: Annotated[
        Path | None,
        typer.Option(
            metavar="CONFIG",
            help="With --from-log: fit the users of this run's YAML, or preset, to the log, and "
            "train on them in the simulator.",
        ),
    ] = None,
    shared: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> int:
    """Train a team, compare it with the baselines, and print the run's folder; of several runs,
    print and write their comparison.
    """
    if resume is not None:
        if any(x is not None for x in (configs, run_dir, seeds, init_from, from_log)):
            raise ConfigError("--resume takes its configuration from the run; leave the others out")
        from agents.commands.train import continue_run

        return continue_run(resume, overrides or [])
    if from_log is not None:
        if init_from is None or run_dir is None or seeds is not None or len(configs or ()) > 1:
            raise ConfigError(
                "--from-log takes one bundle to begin with and the place of the new one: "
                f"{typed('train')} --from-log EVENTS --init-from BUNDLE --run-dir NEW"
            )
        from agents.commands.loop import learn

        settings = Path(configs[0]) if configs else None
        return learn(from_log, init_from, run_dir, settings, overrides or [], users)
    if users is not None:
        raise ConfigError("--users says on whom to train from a log; give --from-log EVENTS too")
    if not configs:
        example = "configs/default.yaml" if typed("train") != "marec train" else "default"
        raise ConfigError(f"name a configuration, for example: {typed('train')} {example}")
    for config in configs:
        if (Path(config) / "config.yaml").is_file():
            cure = f"{typed('train')} --resume {config}"
            raise ConfigError(f"{config} is a run; to continue it: {cure}")
        if (slip := _as_setting(config)) and not Path(config).exists():
            raise ConfigError(slip)
    if seeds is not None or len(configs) > 1:
        several = "--seeds" if seeds is not None else "several configurations"
        if run_dir is not None:
            raise ConfigError(f"{several}: a folder a run; set output=DIR instead of --run-dir")
        if init_from is not None:
            raise ConfigError(
                f"--init-from is for one run, not for {several}: start each by itself"
            )
        from agents.commands.train_set import start_set

        return start_set(configs, seeds, overrides or [], jobs, group)
    from agents.commands.train import start_run

    return start_run(configs[0], overrides or [], run_dir, group, init_from, shared)


if __name__ == "__main__":
    sys.exit(main())
