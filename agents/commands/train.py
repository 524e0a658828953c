"""Starting and continuing runs: configuration in, folder out, one exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from agents.commands.shared import tell
from agents.comparison.grouping import seed_ranges
from agents.config import RunConfig, preset_name
from agents.entry import USER_ERROR
from agents.learners.ray_session import watch_ray
from agents.runs import manifest
from agents.runs.checkpoints import Checkpoint, Progress, latest_checkpoint, save_checkpoint
from agents.runs.environment import (
    build_trainer,
    build_trainers,
    input_hashes,
    limit_threads,
    told_of,
)
from agents.runs.folder import RunFolder, check_place, create_run, open_run, run_name
from agents.runs.metrics_log import restore_metrics
from agents.runs.progress import ProgressDisplay
from agents.runs.tracking import Trackers, open_trackers
from agents.runs.train_loop import INTERRUPTED, Stop, TrainingResult, Watch, in_turn, iterations
from agents.runs.trained import FIXED, load_run
from marec_env import io
from marec_env.config.loader import load
from marec_env.config.yaml_source import dump
from marec_env.errors import ConfigError, MarecError, RunError, visible
from marec_env.shipped import typed

if TYPE_CHECKING:
    from agents.commands.cohort import BaselineCohort
    from agents.learners.trainer import Trainer
    from marec_env.evaluation.comparison import Evaluation

_SHOWN = 3  # edited settings that an error names


def start_run(
    path: str,
    overrides: Sequence[str],
    run_dir: Path | None,
    group: str | None = None,
    init_from: Path | None = None,
    shared: Path | None = None,
) -> int:
    """Train a new run and compare it with the baselines; return the exit code.

    Nothing is written before configuration, data, weights and baselines have been read and built
    without error.

    Args:
        path: YAML of a :class:`~agents.config.RunConfig`.
        overrides: ``section.key=value`` each.
        run_dir: the run's folder; by default a new one in ``config.output``.
        group: W&B group, for runs started together.
        init_from: a run whose newest checkpoint gives the networks to begin with. Its users,
            rewards and budget may differ from this run's; algorithm, components and networks not.
        shared: folder of what came of baselines, see :mod:`agents.commands.cohort`.

    Raises:
        MarecError: the input is at fault.
    """
    config = in_group(load(path, RunConfig, overrides), group)
    places = None if run_dir is None else [run_dir]
    return begin(config, [config.seed], places, init_from, shared)


def in_group(config: RunConfig, group: str | None) -> RunConfig:
    """Return a run in a group of the dashboards, unless its configuration names one."""
    if group is None or config.tracking.group is not None:
        return config
    tracking = config.tracking.model_copy(update={"group": group})
    return config.model_copy(update={"tracking": tracking})


@dataclass(frozen=True, slots=True)
class _Job:
    """A run ready to train."""

    config: RunConfig
    folder: RunFolder
    trainer: Trainer
    checkpoint: Checkpoint | None


def begin(
    config: RunConfig, seeds: Sequence[int], places: Sequence[Path] | None = None,
    init_from: Path | None = None, shared: Path | None = None,
) -> int:  # fmt: skip
    """Begin a run a seed, in step; return the worst exit code. Arguments as of :func:`start_run`;
    ``places`` are the folders, one a seed.
    """
    kind, given = config.algorithm.kind, places is not None
    if places is None:
        places = [Path(config.output) / run_name(config.name, kind, seed) for seed in seeds]
    for place in places:
        check_place(place)
    limit_threads(config)
    named = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seed_ranges(seeds)} as one batch"
    tell(f"Preparing {kind} on {preset_name(config)}, {named} ...")
    hashes = input_hashes(config)
    cohort = _cohort(config, shared)
    with ExitStack() as stack:
        trainers = build_trainers(config, seeds)
        stack.callback(trainers[0].close)
        source = None if init_from is None else _begin_with(trainers[0], init_from)
        told = told_of(config)
        jobs = []
        for seed, trainer, place in zip(seeds, trainers, places, strict=True):
            own = config.model_copy(update={"seed": seed})
            content = manifest.build_manifest(own, hashes, sys.argv, *told)
            if source is not None:
                content["init_from"] = str(source.absolute())  # type: ignore[typeddict-unknown-key]

            def fill(
                folder: RunFolder, own: RunConfig = own, trainer: Trainer = trainer,
                content: manifest.Manifest = content,
            ) -> None:  # fmt: skip
                io.write_text(folder.config, dump(own))
                if source is not None:
                    # Written down at once: a run that is resumed before its first iteration ends
                    # must not begin with other networks.
                    save_checkpoint(folder.checkpoints, trainer.save, Progress(0, 0, 0.0), 0)
                io.write_json(folder.manifest, content)

            folder = create_run(place, fill, unique=not given)
            stack.enter_context(folder.locked())
            first = latest_checkpoint(folder.checkpoints, tell)
            jobs.append(_Job(own, folder, trainer, first))
        return _run(jobs, cohort)


def _begin_with(trainer: Trainer, run: Path) -> Path:
    """Take over the networks of a run's newest checkpoint; return the checkpoint's folder."""
    found = load_run(run, tell).newest()
    tell(f"Beginning with the networks of {found.folder} ...")
    trainer.begin_with(found.trainer)
    return found.folder


def continue_run(path: Path, overrides: Sequence[str]) -> int:
    """Continue a run from its newest undamaged checkpoint; return the exit code.

    Overrides may be of ``training``, ``evaluation``, ``tracking`` and the device only.

    Raises:
        MarecError: the folder or the input is at fault; the run is left as it was.
    """
    folder = open_run(path)
    before = manifest.run_config(folder)
    config = manifest.run_config(folder, overrides)
    for override in overrides:
        if (section := override.partition("=")[0].partition(".")[0]) in FIXED:
            free = sorted(RunConfig.model_fields.keys() - FIXED - {"name", "output"})
            raise ConfigError(
                f"--set {override}: '{section}' is fixed once a run has begun; on resuming only "
                f"{', '.join(free)} can be set; start a new run instead"
            )
    limit_threads(config)
    with folder.locked():
        known = manifest.read_manifest(folder.manifest)
        _refuse_edits(folder, manifest.changed_settings(known, before), overrides)
        checkpoint = latest_checkpoint(folder.checkpoints, tell)
        at = checkpoint.progress if checkpoint else Progress(0, 0, 0.0)
        tell(
            f"Resuming {folder.path} at {at.env_steps:,} env steps ..."
            if checkpoint
            else f"{folder.path} has no checkpoint yet; beginning anew ..."
        )
        if config.training.env_steps < min(at.env_steps, before.training.env_steps):
            raise ConfigError(
                f"--set training.env_steps={config.training.env_steps}: the run has trained "
                f"{at.env_steps:,} already; give that or more, or start a new run"
            )
        hashes = input_hashes(config)
        for name in manifest.changed_inputs(known, hashes):
            raise RunError(
                f"{name} changed since the run began (then {known['inputs'][name]}, now "
                f"{hashes.get(name)}); restore what was then, or start a new run"
            )
        cohort = _cohort(config)
        with closing(build_trainer(config)) as trainer:
            copy = checkpoint.metrics if checkpoint else None
            told = restore_metrics(folder.metrics, at.iterations, copy)
            # The configuration first: if only it is written, resuming names the very same --set.
            if config != before:
                io.write_text(folder.config, dump(config))
            notes = [told] if told else []
            warnings = manifest.record_resume(
                folder.manifest, config, at.env_steps, overrides, notes
            )
            for line in (*notes, *warnings):
                tell(f"warning: {line}")
            return _run([_Job(config, folder, trainer, checkpoint)], cohort)


def _refuse_edits(folder: RunFolder, changed: Mapping[str, str], overrides: Sequence[str]) -> None:
    """Refuse a ``config.yaml`` that was edited, unless the command line says the same anew."""
    said = [override.partition("=")[0] for override in overrides]
    edited = {
        key: line
        for key, line in changed.items()
        if not any(f"{key}.".startswith(f"{one}.") for one in said)
    }
    if not edited:
        return
    shown = "; ".join(list(edited.values())[:_SHOWN])
    more = f" and {len(edited) - _SHOWN} more" if len(edited) > _SHOWN else ""
    fixed = any(key.partition(".")[0] in FIXED for key in edited)
    settings = " ".join(f"--set {key}=..." for key in edited)
    cure = "" if fixed else f", or say it on resuming: --resume {folder.path} {settings}"
    raise RunError(
        f"{folder.config} was edited since the run began ({shown}{more}); put it back{cure}, or "
        f"start a new run: {typed('train')} {folder.config}"
    )


def _cohort(config: RunConfig, shared: Path | None = None) -> BaselineCohort | None:
    """Return the sessions on which a run is evaluated, if it is, with its baselines built."""
    settings = config.evaluation
    watched = settings.every is not None and settings.every <= config.training.env_steps
    if not (settings.at_end or watched):
        return None
    from agents.commands.cohort import cohort_of

    return cohort_of(config, settings, shared)


def _run(jobs: Sequence[_Job], cohort: BaselineCohort | None) -> int:
    """Train runs in step, compare each, and say how each ended and where it lies.

    Progress shows the first of them. A run that fails does not stop the others.
    """
    config, folder = jobs[0].config, jobs[0].folder
    total, before = config.training.env_steps, jobs[0].checkpoint
    with ExitStack() as stack:
        tracked = [
            stack.enter_context(closing(open_trackers(job.config, job.folder.path, tell)))
            for job in jobs
        ]
        start = before.progress.env_steps if before else 0
        with ProgressDisplay(total, start) as progress, watch_ray(_ends(folder)):
            unseen = ProgressDisplay(total, start, Console(quiet=True))
            stop = Stop(progress.say)
            runs = [
                iterations(
                    job.config.training, job.folder, job.trainer, checkpoint=job.checkpoint,
                    trackers=trackers, progress=unseen if place else progress, stop=stop,
                    watch=_watch(job, cohort),
                )
                for place, (job, trackers) in enumerate(zip(jobs, tracked, strict=True))
            ]  # fmt: skip
            results = in_turn(runs, stop)
        worst = 0
        for job, trackers, result in zip(jobs, tracked, results, strict=True):
            if not isinstance(result, MarecError):
                worst = max(worst, _ended(job, trackers, result, cohort, quiet=len(jobs) > 1))
            elif len(jobs) == 1:
                raise result
            else:
                tell(f"error: seed {job.config.seed}: {result}")
                worst = max(worst, USER_ERROR)
    return worst


def _watch(job: _Job, cohort: BaselineCohort | None) -> Watch | None:
    """Return how a team is evaluated as it trains, if that is configured."""
    settings = job.config.evaluation
    if cohort is None or settings.every is None:
        return None
    evaluate = lambda: cohort.point(job.trainer.policy())  # noqa: E731
    return Watch(settings.every, evaluate, cohort.best)


def _ended(
    job: _Job, trackers: Trackers, result: TrainingResult, cohort: BaselineCohort | None,
    quiet: bool,
) -> int:  # fmt: skip
    """Compare a trained team, and say where the run lies; return its exit code."""
    folder = job.folder
    if result.interrupted:
        tell(f"Stopped; continue with: {typed('train')} --resume {folder.path}")
        return INTERRUPTED
    settings = job.config.evaluation
    if cohort is not None and settings.at_end:
        from agents.commands.evaluate import evaluate_run

        tell(f"Comparing on {settings.sessions} sessions with {', '.join(cohort.names)} ...")
        team, steps = job.trainer.policy(), job.trainer.env_steps
        found, _ = evaluate_run(
            folder.path, cohort, team, steps, replace=True,
            quiet=quiet or not settings.report, page=settings.report,
        )  # fmt: skip
        _track_comparison(trackers, found)
    else:
        from agents.comparison.report import write_run_report

        write_run_report(folder.path)
    trackers.artifact("config", [folder.config, folder.manifest])
    trackers.artifact("report", [folder.report, folder.evaluation, folder.metrics])
    if result.checkpoint is not None:
        trackers.artifact("checkpoint", [result.checkpoint])
    print(visible(f"Run folder: {folder.path}"))
    return 0


def _ends(folder: RunFolder) -> Callable[[str], None]:
    """Return what ends this process in a line when Ray dies: nothing can be finished without it."""

    def end(process: str) -> None:
        tell(
            f"error: Ray's {process} died, and training with it; continue from the last checkpoint "
            f"with: {typed('train')} --resume {folder.path}"
        )
        sys.stderr.flush()
        os._exit(USER_ERROR)

    return end


def _track_comparison(trackers: Trackers, comparison: Evaluation) -> None:
    """Hand dashboards means by ``compare/<policy>/<outcome>``, and all of them as one table."""
    means = {
        policy: {name: numbers.mean for name, numbers in found.outcomes.items()}
        for policy, found in comparison.policies.items()
    }
    for policy, found in comparison.policies.items():
        if "clicks" in found.regret:
            means[policy]["regret"] = found.regret["clicks"].mean
    values = {f"compare/{p}/{name}": v for p, found in means.items() for name, v in found.items()}
    trackers.summary({name: value for name, value in values.items() if value is not None})
    names = list(dict.fromkeys(name for found in means.values() for name in found))
    rows = [[policy, *(found.get(name) for name in names)] for policy, found in means.items()]
    trackers.table("comparison", ["policy", *names], rows)
