"""A run read back without RLlib or Ray: its configuration and the policies it has trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from agents.config import RunConfig, moved, placed
from agents.learners.config import OwnConfig, RLlibConfig
from agents.learners.policy import TrainedPolicy, load_policy
from agents.runs.checkpoints import Checkpoint, latest_checkpoint, whole_checkpoints
from agents.runs.environment import input_hashes
from agents.runs.folder import RunFolder, open_run
from agents.runs.manifest import (
    Manifest,
    changed_inputs,
    changed_settings,
    read_manifest,
    run_config,
)
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError, RunError
from marec_env.shipped import typed

FIXED = {"seed", "environment", "algorithm", "sampling"}
"""What decides a run's numbers, and cannot be set anew once it has begun."""


@dataclass(frozen=True)
class TrainedRun:
    """A finished or running run; its policies are read when they are asked for.

    >>> load_run(Path("runs/my-run"), print).policy.act(observations)  # doctest: +SKIP
    """

    folder: RunFolder
    config: RunConfig
    manifest: Manifest
    """Empty if it cannot be read."""
    say: Callable[[str], None]
    """Is told which checkpoints are passed over as damaged."""
    best: bool = False
    """Whether the policy is that of the best evaluation while training, not the newest."""

    @property
    def name(self) -> str:
        """The run folder's name."""
        return self.folder.name

    @property
    def environment(self) -> EnvironmentConfig:
        """The recommender that the run is on.

        Raises:
            ConfigError: it is on another environment.
        """
        environment = placed(self.config).environment
        if not isinstance(environment, EnvironmentConfig):
            raise ConfigError(
                f"{self.folder.path}: only runs of environment.kind 'marec' can be used here"
            )
        return environment

    @cached_property
    def policy(self) -> TrainedPolicy:
        """The policy of the newest (or best) undamaged checkpoint.

        Raises:
            RunError: there is none.
            ConfigError: one of RLlib's own algorithms trained the run.
        """
        self._refuse_stock()
        return load_policy(self.newest().trainer)

    def newest(self) -> Checkpoint:
        """Return the newest (or best) undamaged checkpoint, or refuse if there is none."""
        folder = self.folder.best if self.best else self.folder.checkpoints
        checkpoint = latest_checkpoint(folder, self.say)
        if checkpoint is None and self.best:
            raise RunError(
                f"{self.folder.path} has no best checkpoint; train with evaluation.every set"
            )
        if checkpoint is None:
            raise self._untrained()
        return checkpoint

    def policies(self) -> list[tuple[int, TrainedPolicy]]:
        """Return env steps and policy of every undamaged checkpoint, oldest first; at least one."""
        self._refuse_stock()
        found = whole_checkpoints(self.folder.checkpoints, self.say)
        if not found:
            raise self._untrained()
        return [(point.progress.env_steps, load_policy(point.trainer)) for point in found]

    def changed_inputs(self) -> list[str]:
        """Return which of log, encoder weights and topics are not what the run was trained on."""
        return changed_inputs(self.manifest, input_hashes(self.config))

    def _refuse_stock(self) -> None:
        if isinstance(self.config.algorithm, OwnConfig):
            raise ConfigError(
                f"{self.folder.path}: '{self.config.algorithm.name}' was trained elsewhere and is"
                " recorded with its evaluation alone; record it anew (agents.record_policy), or"
                " name its factory among the baselines of a run"
            )
        if isinstance(self.config.algorithm, RLlibConfig):
            raise ConfigError(
                f"{self.folder.path}: what algorithm.kind rllib trains can be evaluated at the end "
                "of training only (evaluation.at_end); marec's own learners can be read back at "
                "any time"
            )

    def _untrained(self) -> RunError:
        path = self.folder.path
        again = f"{typed('train')} --resume {path}"
        return RunError(f"{path} has no checkpoint yet; train it first ({again})")


def load_run(
    path: Path, say: Callable[[str], None] = lambda line: None, device: str | None = None
) -> TrainedRun:
    """Return a run.

    Args:
        path: folder of a finished or running run.
        say: is told which checkpoints are passed over as damaged.
        device: on which the run is looked at; by default that of training, and the CPU where this
            machine lacks it.

    Raises:
        RunError: the folder is no run's, or its configuration was edited since the run began.
        ConfigError: its configuration cannot be read.
    """
    folder = open_run(path)
    config = run_config(folder)
    try:
        known: Manifest = read_manifest(folder.manifest)
    except RunError as error:
        say(f"warning: what the run was made of is not checked: {error}")
        known = {}
    edited = [
        line for key, line in changed_settings(known, config).items() if key.split(".")[0] in FIXED
    ]
    if edited:
        raise RunError(
            f"{folder.config} was edited since the run began ({'; '.join(edited[:3])}); put it back"
        )
    if device is None:
        try:
            placed(config)
        except ConfigError as error:
            say(f"warning: looked at on the CPU: {error}")
            device = "cpu"
    return TrainedRun(folder, config if device is None else moved(config, device), known, say)
