"""A run read back: its configuration, and its policy at every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agents.config import RunConfig
from agents.learners.policy import TrainedPolicy
from agents.learners.policy_files import load_policy
from agents.runs.checkpoints import damage
from agents.runs.folder import open_run
from marec_env.config.loader import load
from marec_env.errors import RunError

__all__ = ["LoadedRun", "load_run"]


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """A run's configuration and its policy at each checkpoint."""

    name: str
    config: RunConfig
    checkpoints: tuple[tuple[int, TrainedPolicy], ...]
    """Env steps and policy, oldest first; at least one."""

    @property
    def team(self) -> TrainedPolicy:
        """Return the latest policy."""
        return self.checkpoints[-1][1]


def load_run(path: Path) -> LoadedRun:
    """Read a run's folder.

    Raises:
        RunError: the folder is no run's, or holds no whole checkpoint.
    """
    folder = open_run(path)
    config = load(folder.config, RunConfig)
    checkpoints = []
    for place in sorted(folder.checkpoints.glob("env_steps-*")):
        if damage(place) is None:
            steps = int(place.name.removeprefix("env_steps-"))
            checkpoints.append((steps, load_policy(place / "trainer")))
    if not checkpoints:
        raise RunError(
            f"{path}: no whole checkpoint; train it first: python train.py --resume {path}"
        )
    return LoadedRun(folder.name, config, tuple(checkpoints))
