"""What a comparison reads of a run's folder, and what is wrong with it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.config import EvaluationConfig, RunConfig, TrainingConfig, config_hash
from agents.runs.folder import RunFolder, open_run
from agents.runs.manifest import (
    TOPICS,
    CodeVersion,
    Manifest,
    changed_settings,
    read_manifest,
    run_config,
    trained_by,
)
from agents.runs.metrics_log import missing_rows, read_metrics
from agents.runs.trained import FIXED
from marec_env.errors import ConfigError, RunError
from marec_env.evaluation.comparison import Evaluation
from marec_env.io import read_json
from marec_env.shipped import typed

TRAINED = "trained team"
"""The run's own policy among those of its evaluation."""


@dataclass(frozen=True)
class Run:
    """One run; its numbers enter averages only without :attr:`defects`."""

    path: Path
    seed: int
    config: dict[str, Any]
    """Resolved, as JSON has it; empty if it could not be read."""
    experiment: str
    """What the seeds of one experiment share, see :func:`experiment_hash`."""
    codes: tuple[CodeVersion, ...]
    """What trained it, in order; more than one if it was resumed with other code."""
    metrics: list[dict[str, float | None]] = field(default_factory=list)
    evaluation: Evaluation | None = None
    topics: str | None = None
    """Hash of the topics of the users it was trained and evaluated on; ``None`` if it was not kept,
    or if it was evaluated on others."""
    warnings: tuple[str, ...] = ()
    """What is not plausible about its data."""
    defects: tuple[str, ...] = ()
    """Why the run's numbers do not enter any average; empty for a sound run."""

    @property
    def name(self) -> str:
        """First part of the run folder's name."""
        return str(self.config.get("name", self.path.name))

    @property
    def algorithm(self) -> str:
        """The kind of algorithm; one's own by its name."""
        found = self.config.get("algorithm", {})
        return str(found.get("name" if found.get("kind") == "own" else "kind", "unknown"))

    @property
    def evaluated(self) -> Evaluation:
        """The evaluation of a sound run."""
        assert self.evaluation is not None
        return self.evaluation

    @property
    def code(self) -> str:
        """What trained it, in words."""
        return ", then ".join(map(str, self.codes))


def experiment_hash(config: RunConfig, continued: bool = False) -> str:
    """Return a hash that runs share which differ in seed, labels and bookkeeping only.

    How often a run is saved, what it is evaluated on and how many threads torch has do not change
    what it learns (but for rounding); whether the evaluations fit together is checked on the
    evaluations themselves.

    Args:
        config: of a run.
        continued: whether it began with another run's networks.
    """
    changes = {
        "evaluation": EvaluationConfig(),
        "training": TrainingConfig(env_steps=config.training.env_steps),
        "sampling": config.sampling.model_copy(update={"torch_threads": None}),
    }
    found = config_hash(config.model_copy(update=changes))
    return hashlib.sha256(f"{found} continued".encode()).hexdigest() if continued else found


def read_run(path: Path, evaluation: str = "evaluation.json") -> Run:
    """Read a run; damage and missing parts become :attr:`Run.defects`.

    Args:
        path: its folder.
        evaluation: the file in it that has the evaluation.

    Raises:
        RunError: the folder is not a run's.
    """
    folder = open_run(path)
    try:
        config = run_config(folder)
    except ConfigError as error:
        reason = str(error).splitlines()[0]
        return Run(path, -1, {}, "", (), defects=(f"unreadable config.yaml ({reason})",))
    defects: list[str] = []
    manifest = _manifest(folder, config, defects)
    metrics = _metrics(folder, config, defects)
    steps = max((row.get("env_steps") or 0 for row in metrics), default=0)
    return Run(
        path=path,
        seed=config.seed,
        config=config.model_dump(mode="json"),
        experiment=experiment_hash(config, continued="init_from" in manifest),
        codes=tuple(trained_by(manifest, steps)),
        metrics=metrics,
        evaluation=_evaluation(path / evaluation, steps, defects),
        topics=topics_of(manifest.get("inputs"), config.evaluation.environment),
        warnings=tuple(manifest.get("warnings", ())),
        defects=tuple(defects),
    )


def topics_of(inputs: object, elsewhere: object = None) -> str | None:
    """Return the hash of topics among a manifest's ``inputs``; ``None`` if it was not kept, or if
    the evaluation was ``elsewhere`` (``evaluation.environment``): those of training say nothing.
    """
    return inputs.get(TOPICS) if isinstance(inputs, dict) and not elsewhere else None


def _manifest(folder: RunFolder, config: RunConfig, defects: list[str]) -> Manifest:
    try:
        manifest = read_manifest(folder.manifest)
        edited = changed_settings(manifest, config)
    except (RunError, ConfigError) as error:
        defects.append(f"no usable manifest ({error})")
        return {}
    lines = [line for key, line in edited.items() if key.partition(".")[0] in FIXED]
    if lines:
        defects.append(f"config.yaml was edited since the run began ({'; '.join(lines[:3])})")
    return manifest


def _metrics(
    folder: RunFolder, config: RunConfig, defects: list[str]
) -> list[dict[str, float | None]]:
    try:
        rows = read_metrics(folder.metrics)
    except RunError as error:
        defects.append(f"damaged metrics ({error})")
        return []
    steps = max((row.get("env_steps") or 0 for row in rows), default=0)
    if steps < config.training.env_steps:
        defects.append(f"unfinished ({steps:,.0f} of {config.training.env_steps:,} env steps)")
    elif missing := missing_rows(rows):
        defects.append(f"metrics.jsonl lacks {missing:,} iterations")
    return rows


def _evaluation(path: Path, steps: float, defects: list[str]) -> Evaluation | None:
    again = f"{typed('evaluate')} {path.parent}"
    if not path.exists():
        defects.append(f"not evaluated ({again})")
        return None
    try:
        found: Evaluation = read_json(path, Evaluation)
        if TRAINED not in found.policies:
            raise RunError(f"it lacks the {TRAINED}")
    except RunError as error:
        defects.append(f"damaged evaluation.json ({error}); make it anew: {again}")
        return None
    if found.env_steps is not None and found.env_steps != steps:
        defects.append(f"evaluated at {found.env_steps:,.0f} of {steps:,.0f} env steps")
    return found
