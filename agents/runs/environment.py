"""What a run's configuration is made into: an environment, a trainer, and hashes of its inputs."""

from __future__ import annotations

import hashlib
import logging
import os
from functools import partial
from typing import TYPE_CHECKING

from agents.config import RunConfig, placed
from agents.pettingzoo_adapter import PettingZooConfig, make_pettingzoo
from agents.runs.manifest import TOPICS
from marec_env.environment_config import EnvironmentConfig
from marec_env.vector import VectorEnv

if TYPE_CHECKING:
    from agents.learners.trainer import Trainer
    from marec_env.world import World

__all__ = [
    "build_trainer",
    "input_hashes",
    "limit_threads",
    "make_environment",
    "run_world",
]


def make_environment(config: RunConfig, num_sessions: int) -> VectorEnv:
    """Return the configured environment with ``num_sessions`` sessions."""
    environment = placed(config).environment
    if isinstance(environment, PettingZooConfig):
        return make_pettingzoo(environment, num_sessions)
    from marec_env.env import make_vec

    return make_vec(environment, num_sessions)


def run_world(config: RunConfig) -> World:
    """Return the world of a run on the recommender, on the run's device."""
    from marec_env.world import build_world

    environment = placed(config).environment
    assert isinstance(environment, EnvironmentConfig)
    return build_world(environment)


def limit_threads(config: RunConfig) -> None:
    """Hold PyTorch to ``sampling.torch_threads`` before the first operation.

    Threads that compete for cores made building users five times slower, and sums in another
    order would keep a resumed run from repeating the uninterrupted one.
    """
    import torch

    if config.sampling.torch_threads is not None:
        torch.set_num_threads(config.sampling.torch_threads)


def build_trainer(config: RunConfig) -> Trainer:
    """Return a fresh trainer of a run, or refuse what cannot be built."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as Ray announces; no warning
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    # RLlib warns of a constructor argument that only RLlib itself passes.
    logging.getLogger("ray._common.deprecation").setLevel(logging.ERROR)
    from agents.learners.trainer import Trainer

    factory = partial(make_environment, config)
    return Trainer(config.algorithm, placed(config).sampling, config.seed, factory)


def input_hashes(config: RunConfig) -> dict[str, str]:
    """Return hashes by name of the log and the encoder weights that a run reads, and of the topics
    that came of them here: processors round differently, and topics decide who the users are.
    """
    if isinstance(config.environment, PettingZooConfig):
        return {}
    from marec_env.embeddings.assets import weights_hash

    world = run_world(config)
    return {
        f"data ({config.environment.data.source})": world.log.fingerprint,
        "encoder weights": weights_hash(config.environment.embeddings),
        TOPICS: hashlib.sha256(world.catalog.topics.cpu().numpy().tobytes()).hexdigest(),
    }
