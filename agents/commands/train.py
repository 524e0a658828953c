"""Starting and continuing runs: configuration in, folder out, one exit code."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from agents.config import RunConfig, config_hash, preset_name
from agents.pettingzoo_adapter import PettingZooConfig
from agents.runs import manifest
from agents.runs.checkpoints import Checkpoint, Progress, latest_checkpoint, save_checkpoint
from agents.runs.environment import build_trainer, input_hashes, limit_threads
from agents.runs.folder import RunFolder, check_place, create_run, open_run, run_name
from agents.runs.interrupt import INTERRUPTED
from agents.runs.progress import open_progress
from agents.runs.seeds import parse_seeds, train_seeds
from agents.runs.tracking import RunIdentity, Trackers, open_trackers
from agents.runs.train_loop import Outcome, train
from marec_env import io
from marec_env.config.dump import dump
from marec_env.config.loader import load, load_text
from marec_env.errors import ConfigError, RunError
from marec_env.world import build_world

if TYPE_CHECKING:
    from agents.learners.trainer import Trainer
    from marec_env.evaluation.comparison import Comparison

__all__ = ["continue_run", "start_run", "start_seeds"]

_CHANGEABLE = {"training", "evaluation", "tracking"}
"""Sections that may be set anew on resuming; the others decide what has been learned already."""


@dataclass(frozen=True, slots=True)
class _Job:
    """A run ready to train."""

    config: RunConfig
    folder: RunFolder
    trainer: Trainer
    checkpoint: Checkpoint | None


def _say(message: str) -> None:
    Console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)


def start_run(
    path: str,
    overrides: Sequence[str],
    run_dir: Path | None,
    group: str | None = None,
    init_from: Path | None = None,
) -> int:
    """Train a new run and compare it with the baselines; return the exit code.

    Nothing is written before configuration, data and weights have been read without error.

    Args:
        path: YAML of a :class:`~agents.config.RunConfig`.
        overrides: ``section.key=value`` each.
        run_dir: the run's folder; by default a new one in ``config.output``.
        group: W&B group, for runs started together.
        init_from: a run whose newest checkpoint gives the networks to begin with. Its users,
            rewards and budget may differ from this run's; algorithm, components and networks not.

    Raises:
        MarecError: the input is at fault.
    """
    config = load(path, RunConfig, overrides)
    if group and config.tracking.group is None:
        tracking = config.tracking.model_copy(update={"group": group})
        config = config.model_copy(update={"tracking": tracking})
    place = run_dir or Path(config.output) / run_name(
        config.name, config.algorithm.kind, config.seed
    )
    check_place(place)
    _check_baselines(config)
    limit_threads(config)
    _say(f"Preparing {config.algorithm.kind} on {preset_name(config)}, seed {config.seed} ...")
    trainer = build_trainer(config)
    try:
        source = None if init_from is None else _begin_with(trainer, init_from)
        hashes = input_hashes(config)
        folder = create_run(place, unique=run_dir is None)
        io.write_text(folder.config, dump(config))
        content = manifest.build_manifest(
            seed=config.seed, config_hash=config_hash(config), inputs=hashes, command=sys.argv
        )
        if source is not None:
            content["init_from"] = str(source.absolute())
        io.write_json(folder.manifest, content)
        with folder.locked():
            first = None
            if source is not None:
                # Written down at once: a run that is resumed before its first iteration ends must
                # not begin with other networks.
                keep = config.training.keep_checkpoints
                save_checkpoint(folder.checkpoints, trainer.save, Progress(0, 0, 0.0), keep)
                first = latest_checkpoint(folder.checkpoints, _say)
            return _run(_Job(config, folder, trainer, first))
    finally:
        trainer.close()


def _begin_with(trainer: Trainer, run: Path) -> Path:
    """Take over the networks of a run's newest checkpoint; return the checkpoint's folder."""
    found = latest_checkpoint(open_run(run).checkpoints, _say)
    if found is None:
        raise RunError(f"{run} has no checkpoint yet; train it first (train.py --resume {run})")
    _say(f"Beginning with the networks of {found.folder} ...")
    trainer.begin_with(found.trainer)
    return found.folder


def start_seeds(
    path: str, seeds: str, overrides: Sequence[str], jobs: int, group: str | None = None
) -> int:
    """Train several seeds of a configuration; return the worst exit code.

    Args:
        path: YAML of a :class:`~agents.config.RunConfig`.
        seeds: for example ``0-9``.
        overrides: ``section.key=value`` each.
        jobs: seeds trained at once.
        group: in dashboards; by default one that the seeds share.

    Raises:
        MarecError: the input is at fault.
    """
    numbers = parse_seeds(seeds)
    config = load(path, RunConfig, overrides)
    return train_seeds(path, numbers, overrides, group or _identity(config, "").default_group, jobs)


def continue_run(path: Path, overrides: Sequence[str]) -> int:
    """Continue a run from its newest undamaged checkpoint; return the exit code.

    Args:
        path: the run's folder.
        overrides: of ``training``, ``evaluation`` or ``tracking`` only.

    Raises:
        MarecError: the folder or the input is at fault; the run is left as it was.
    """
    folder = open_run(path)
    text = folder.config.read_text()
    before = load_text(text, str(folder.config), RunConfig)
    config = load(folder.config, RunConfig, overrides)
    for override in overrides:
        section = override.partition("=")[0].partition(".")[0]
        if section not in _CHANGEABLE:
            raise ConfigError(
                f"--set {override}: '{section}' is fixed once a run has begun; on resuming only "
                f"{', '.join(sorted(_CHANGEABLE))} can be set; start a new run instead"
            )
    _check_baselines(config)
    limit_threads(config)
    with folder.locked():
        known = manifest.read_manifest(folder.manifest)
        checkpoint = latest_checkpoint(folder.checkpoints, _say)
        _say(
            f"Resuming {folder.path} at {checkpoint.progress.env_steps:,} env steps ..."
            if checkpoint
            else f"{folder.path} has no checkpoint yet; beginning anew ..."
        )
        steps = checkpoint.progress.env_steps if checkpoint else 0
        if config.training.env_steps < min(steps, before.training.env_steps):
            raise ConfigError(
                f"--set training.env_steps={config.training.env_steps}: the run has trained "
                f"{steps:,} already; give that or more, or start a new run"
            )
        manifest.check_same_inputs(known, input_hashes(config))
        trainer = build_trainer(config)
        try:
            if config != before:
                io.write_text(folder.config, dump(config))
            manifest.record_resume(folder.manifest, steps, list(overrides))
            return _run(_Job(config, folder, trainer, checkpoint))
        finally:
            trainer.close()


def _check_baselines(config: RunConfig) -> None:
    """Refuse an unknown baseline before hours of training rather than after."""
    if config.evaluation.at_end and not isinstance(config.environment, PettingZooConfig):
        from agents.baselines import BASELINES

        for name in config.evaluation.baselines:
            BASELINES.get(name)


def _run(job: _Job) -> int:
    """Train, compare, then say how the run ended and where it lies."""
    config, folder = job.config, job.folder
    trackers = open_trackers(
        config.tracking,
        _identity(config, folder.name),
        folder.path,
        config.model_dump(mode="json"),
        _say,
    )
    try:
        outcome = _train(job, trackers)
        if outcome.interrupted:
            _say(f"Stopped; continue with: python train.py --resume {folder.path}")
            return INTERRUPTED
        compared = config.evaluation.at_end
        if compared and isinstance(config.environment, PettingZooConfig):
            _say("No comparison: baselines recommend items, and this environment has none.")
            compared = False
        if compared:
            _track_comparison(trackers, _compare(job))
        else:
            _write_report(folder)
        trackers.artifact("config", [folder.config, folder.manifest])
        trackers.artifact("report", [folder.report, folder.evaluation, folder.metrics])
        if outcome.checkpoint is not None:
            trackers.artifact("checkpoint", [outcome.checkpoint])
    finally:
        trackers.close()
    print(f"Run folder: {folder.path}")
    return 0


def _identity(config: RunConfig, name: str) -> RunIdentity:
    return RunIdentity(
        name, config.algorithm.kind, preset_name(config), config.seed, config_hash(config)
    )


def _train(job: _Job, trackers: Trackers) -> Outcome:
    training = job.config.training
    start = job.checkpoint.progress.env_steps if job.checkpoint else 0
    with open_progress(training.env_steps, start) as progress:
        return train(
            training,
            job.folder,
            job.trainer,
            checkpoint=job.checkpoint,
            trackers=trackers,
            progress=progress,
        )


def _compare(job: _Job) -> Comparison:
    """Evaluate the trained team beside the baselines; print the table and write it to the run."""
    config = job.config
    assert not isinstance(config.environment, PettingZooConfig)
    from agents.commands.evaluate import evaluate_policy, print_comparison, write_comparison
    from marec_env.reporting.table import table_console

    evaluation = config.evaluation
    _say(f"Comparing on {evaluation.sessions} sessions with {', '.join(evaluation.baselines)} ...")
    comparison = evaluate_policy(
        build_world(config.environment),
        job.trainer.policy(),
        evaluation.baselines,
        evaluation.sessions,
        evaluation.seed,
    )
    write_comparison(comparison, job.folder.path)
    print_comparison(comparison, table_console())
    return comparison


def _track_comparison(trackers: Trackers, comparison: Comparison) -> None:
    """Hand dashboards means by ``compare/<policy>/<outcome>``, and all of them as one table."""
    means = {policy: found.means() for policy, found in comparison.outcomes.items()}
    trackers.summary(
        {f"compare/{p}/{outcome}": v for p, found in means.items() for outcome, v in found.items()}
    )
    outcomes = comparison.metric_names()
    rows = []
    for policy, found in means.items():
        values = [found.get(outcome, math.nan) for outcome in outcomes]
        rows.append([policy, *(value if math.isfinite(value) else None for value in values)])
    trackers.table("comparison", ["policy", *outcomes], rows)


def _write_report(folder: RunFolder) -> None:
    """Write the page of a run that has no comparison: its learning curves."""
    from agents.comparison.report import write_run_report

    write_run_report(folder.path)
