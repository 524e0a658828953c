"""Several runs from one command: seeds, configurations, or both, and their comparison."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from agents.commands.compare import show
from agents.commands.shared import tell
from agents.commands.train import begin, in_group
from agents.comparison.grouping import comparable
from agents.comparison.runs import Run, experiment_hash, read_run
from agents.comparison.summary import summarise
from agents.config import RunConfig
from agents.entry import USER_ERROR
from agents.runs.environment import side_by_side
from agents.runs.folder import check_place, run_name, timestamp
from agents.runs.processes import PlannedRun, train_processes
from agents.runs.tracking import default_group
from agents.runs.train_loop import INTERRUPTED
from marec_env.config import MAX_SEED
from marec_env.config.loader import load
from marec_env.errors import ConfigError, MarecError, visible
from marec_env.shipped import typed

_RANGE = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")
_MAX_SEEDS = 10_000  # more is a slip of the keyboard


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of ``0-9``, ``1,4,7`` or ``0-3,8``, in order, each once.

    Raises:
        ConfigError: the text is of another form, or a range runs backwards.
    """
    seeds: dict[int, None] = {}
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise ConfigError(f"--seeds {text}: '{part}' is neither a seed nor a range such as 0-9")
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if last < first:
            raise ConfigError(f"--seeds {text}: range '{part}' runs backwards")
        if last > MAX_SEED:
            raise ConfigError(f"--seeds {text}: seeds lie between 0 and {MAX_SEED:,} (got {last})")
        if last - first >= _MAX_SEEDS:
            raise ConfigError(f"--seeds {text}: more than {_MAX_SEEDS} seeds")
        seeds.update(dict.fromkeys(range(first, last + 1)))
    return list(seeds)


def start_set(
    paths: Sequence[str], seeds: str | None, overrides: Sequence[str], jobs: int,
    group: str | None = None,
) -> int:  # fmt: skip
    """Train configurations, each with its own seed or with several, then compare them; return the
    worst exit code.

    On the CPU each run is a process, ``jobs`` of them at a time; on CUDA the seeds of a
    configuration are one batch in this process. Baselines play once for all runs that are evaluated
    on the same sessions.

    Args:
        paths: YAML files or presets, of a :class:`~agents.config.RunConfig`.
        seeds: see :func:`parse_seeds`; by default each configuration's own.
        overrides: ``section.key=value`` each.
        jobs: processes at once.
        group: of the dashboards; by default one for each configuration.

    Raises:
        MarecError: the input is at fault; nothing was begun.
    """
    numbers = None if seeds is None else parse_seeds(seeds)
    variables = dict(os.environ)  # before reading a file adds the folder of its code
    configs = {path: load(path, RunConfig, overrides) for path in paths}
    _refuse_twins(paths, configs)
    stamp, planned = timestamp(), dict[str, list[PlannedRun]]()
    taken: set[Path] = set()
    for path, config in configs.items():
        planned[path] = []
        for seed in numbers or [config.seed]:
            place = _free(config, seed, stamp, taken)
            settings = (*overrides, f"seed={seed}")
            known = group or default_group(config)
            run = PlannedRun(path, settings, known, place, config.training.env_steps)
            planned[path].append(run)
    batches = [path for path, config in configs.items() if side_by_side(config)]
    with TemporaryDirectory() as shared:
        apart = [run for path, runs in planned.items() if path not in batches for run in runs]
        stopped = train_processes(apart, jobs, Path(shared), variables) if apart else False
        codes = [_told(run) for run in apart]
        for path in batches if not stopped else ():
            config, runs = configs[path], planned[path]
            places = [run.place for run in runs]
            try:
                found = in_group(config, runs[0].group)
                codes.append(begin(found, numbers or [config.seed], places, shared=Path(shared)))
            except MarecError as error:
                if len(configs) == 1:
                    raise
                tell(f"error: {path}: {error}")
                codes.append(USER_ERROR)
            stopped = codes[-1] == INTERRUPTED
    if stopped:
        return INTERRUPTED
    _compare([run.place for runs in planned.values() for run in runs], stamp)
    return max(codes, default=0)


def _refuse_twins(paths: Sequence[str], configs: Mapping[str, RunConfig]) -> None:
    """Refuse configurations that would train the very same runs, which no comparison takes."""
    known: dict[str, str] = {}
    for path in paths:
        other = known.setdefault(experiment_hash(configs[path]), path)
        if other != path or paths.count(path) > 1:
            raise ConfigError(
                f"{other} and {path} are one experiment: they differ in no setting that decides "
                "what is learned; leave one out"
            )


def _free(config: RunConfig, seed: int, stamp: str, taken: set[Path]) -> Path:
    """Return a new run's folder, apart from those that are ``taken``, to which it is added."""
    first = Path(config.output) / run_name(config.name, config.algorithm.kind, seed, stamp)
    place, number = first, 1
    while place in taken or place.exists():
        number += 1
        place = first.with_name(f"{first.name}-{number}")
    check_place(place)
    taken.add(place)
    return place


def _told(run: PlannedRun) -> int:
    """Tell how a run ended if it did not end well, and how to go on; return its exit code."""
    name = run.place.name
    if run.code is None:
        tell(f"not begun: {name}; begin it with: {run.again}")
        return INTERRUPTED
    if run.code == INTERRUPTED:
        tell(f"stopped: {name}; continue with: {run.again}")
    elif run.code:
        tell(f"error: {name}: {run.error}; continue with: {run.again}")
    return run.code


def _compare(places: Sequence[Path], stamp: str) -> None:
    """Compare runs that ended well, apart where users differ, and print the next command."""
    runs = [read_run(place) for place in places if (place / "config.yaml").is_file()]
    sound = [run for run in runs if not run.defects]
    if not sound:
        reasons = dict.fromkeys(defect for run in runs for defect in run.defects)
        tell(f"No comparison: {'; '.join(reasons) or 'no run ended well'}.")
        return
    parts = comparable(sound)
    base = places[0].parent.parent / f"comparison-{stamp}"
    for number, part in enumerate(parts, start=1):
        title = ", ".join(dict.fromkeys(run.name for run in part))
        command = f"{typed('compare')} {_listed(part, stamp, alone=len(parts) == 1)}"
        output = base
        if len(parts) > 1:
            output = base / f"{number}-{part[0].name}"
            print(visible(f"\n{title}: on users or sessions of its own, compared apart"))
        show(summarise(part), output, title, command)
        print(visible(f"Next, with further runs behind it: {command}"))


def _listed(runs: Sequence[Run], stamp: str, alone: bool) -> str:
    """Return runs as a shell takes them: short where they are all that began together."""
    if not alone:
        return shlex.join(str(run.path) for run in runs)
    folders = dict.fromkeys(shlex.quote(str(run.path.parent)) for run in runs)
    return " ".join(f"{folder}/*-{stamp}*" for folder in folders)
