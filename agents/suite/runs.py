"""The suite's runs: which there are, where they lie, and which are still to be trained."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.comparison.runs import Run, experiment_hash, read_run
from agents.config import RunConfig
from agents.runs.folder import RunFolder
from agents.runs.manifest import flatten
from agents.suite.algorithms import Algorithm
from marec_env.config.loader import load
from marec_env.errors import RunError
from marec_env.io import read_json, write_json

_SECONDS = "seconds.json"
"""In a run's folder: the CPU time that went into it, over all its continuations."""


@dataclass(frozen=True, slots=True)
class SuiteRun:
    """One seed of an algorithm on a task."""

    task: str
    algorithm: str
    seed: int
    config: RunConfig
    folder: Path
    preset: str
    settings: tuple[str, ...]
    """What is laid over the preset: of the command line, and the algorithm's own."""
    own: tuple[str, ...]
    """The algorithm's own."""
    begins_with: Path | None
    """The run whose networks it begins with."""

    @property
    def label(self) -> str:
        """How it is called in messages."""
        return f"{self.task}, {self.algorithm}, seed {self.seed}"

    @property
    def experiment(self) -> str:
        """What the seeds of its algorithm share on its task."""
        return experiment_hash(self.config, continued=self.begins_with is not None)

    @property
    def begun(self) -> bool:
        """Whether there is a run to go on with."""
        return RunFolder(self.folder).config.is_file()

    def read(self) -> Run | None:
        """Return the run if it is finished and evaluated.

        Raises:
            RunError: what lies in its place is of other settings.
        """
        if not self.begun:
            return None
        found = read_run(self.folder)
        if found.config and found.experiment != self.experiment:
            ours, theirs = flatten(self.config.model_dump(mode="json")), flatten(found.config)
            keys = sorted(
                k for k in ours if ours[k] != theirs.get(k) and not k.startswith("output")
            )
            raise RunError(
                f"{self.folder} is a run of other settings ({', '.join(keys[:3])}); name another "
                "folder with --output, or give the settings that it was made with"
            )
        return None if found.defects else found

    @property
    def seconds(self) -> float:
        """CPU seconds that went into it."""
        place = self.folder / _SECONDS
        return float(read_json(place, dict[str, float])["cpu"]) if place.is_file() else 0.0

    def add_seconds(self, seconds: float) -> None:
        """Write down CPU seconds that went into it."""
        write_json(self.folder / _SECONDS, {"cpu": self.seconds + seconds})


@dataclass(frozen=True, slots=True)
class TaskRuns:
    """A task with all its runs."""

    name: str
    config: RunConfig
    """The preset, with what the command line sets."""
    folder: Path
    runs: tuple[SuiteRun, ...]


def plan(
    tasks: Mapping[str, Mapping[str, Algorithm]], seeds: Sequence[int],
    overrides: Sequence[str], output: Path,
) -> list[TaskRuns]:  # fmt: skip
    """Return the runs of every task; nothing is written or computed.

    Args:
        tasks: by name, the algorithms by the names of their columns.
        seeds: of each.
        overrides: ``section.key=value`` for all runs.
        output: folder of the suite.

    Raises:
        ConfigError: a preset, an algorithm's setting or an override does not fit.
    """
    found = []
    for task, algorithms in tasks.items():
        preset = f"suite/{task}"
        config = load(preset, RunConfig, overrides)
        _ = config.recommender  # or refused
        runs = tuple(_runs(task, preset, config, algorithms, seeds, overrides, output / task))
        found.append(TaskRuns(task, config, output / task, runs))
    return found


def _runs(
    task: str, preset: str, config: RunConfig, algorithms: Mapping[str, Algorithm],
    seeds: Sequence[int], overrides: Sequence[str], folder: Path,
) -> Iterator[SuiteRun]:  # fmt: skip
    known: set[str] = set()
    for name, algorithm in algorithms.items():
        if algorithm.at_home and not config.evaluation.environment:
            continue  # it is nowhere else
        home = tuple(_home(config.evaluation.environment)) if algorithm.at_home else ()
        settings = (*overrides, *home, *algorithm.settings, f"name={name}")
        base = load(preset, RunConfig, settings)
        begins = algorithm.begins_with
        made = [
            SuiteRun(
                task, name, seed, base.model_copy(update={"seed": seed}),
                folder / name / f"seed{seed}", preset, (*settings, f"seed={seed}"),
                (*home, *algorithm.settings),
                None if begins is None else folder / begins / f"seed{seed}",
            )
            for seed in seeds
        ]  # fmt: skip
        if made[0].experiment not in known:  # a preset may be what an algorithm sets
            known.add(made[0].experiment)
            yield from made


def _home(changes: Mapping[str, Any]) -> Iterator[str]:
    """Yield the settings that make the environment of the evaluation that of training."""
    for section, value in changes.items():
        yield from _leaves(value, f"environment.{section}")
    yield "evaluation.environment={}"


def _leaves(value: Any, key: str) -> Iterator[str]:
    if isinstance(value, Mapping) and "kind" not in value:
        for name, below in value.items():
            yield from _leaves(below, f"{key}.{name}")
    else:
        yield f"{key}={json.dumps(value)}"
