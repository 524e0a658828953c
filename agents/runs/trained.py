"""What a run on the recommender pipeline has trained, read back without RLlib or Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agents.config import RunConfig
from agents.learners.config import RLlibConfig
from agents.learners.policy import TrainedPolicy
from agents.learners.policy_files import load_policy
from agents.runs.checkpoints import latest_checkpoint
from agents.runs.folder import open_run
from marec_env.config.loader import load
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError, RunError

__all__ = ["load_trained"]


def load_trained(
    path: Path, say: Callable[[str], None]
) -> tuple[RunConfig, EnvironmentConfig, TrainedPolicy]:
    """Return a run's configuration, its environment, and the policy of its newest checkpoint.

    Args:
        path: folder of a finished or running run.
        say: is told which checkpoints were passed over as damaged.

    Raises:
        RunError: the folder is no run's, or has no undamaged checkpoint.
        ConfigError: the run is not on the marec environment, or one of RLlib's own algorithms
            trained it.
    """
    folder = open_run(path)
    config = load(folder.config, RunConfig)
    if not isinstance(config.environment, EnvironmentConfig):
        raise ConfigError(f"{path}: only runs of environment.kind 'marec' can be used here")
    if isinstance(config.algorithm, RLlibConfig):
        raise ConfigError(
            f"{path}: what algorithm.kind rllib trains can be evaluated at the end of training "
            "only (evaluation.at_end); marec's own learners can be read back at any time"
        )
    checkpoint = latest_checkpoint(folder.checkpoints, say)
    if checkpoint is None:
        raise RunError(f"{path} has no checkpoint yet; train it first (train.py --resume {path})")
    return config, config.environment, load_policy(checkpoint.trainer)
