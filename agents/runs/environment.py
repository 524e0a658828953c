"""What a run's configuration is made into: an environment, a trainer, and hashes of its inputs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from agents.config import RunConfig, placed
from agents.learners.config import PPOFamily
from agents.pettingzoo_adapter import PettingZooConfig, make_pettingzoo
from agents.runs.manifest import TOPICS
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError
from marec_env.vector import VectorEnv

if TYPE_CHECKING:
    from agents.learners.trainer import Trainer
    from marec_env.world import World


def make_environment(config: RunConfig, num_sessions: int) -> VectorEnv:
    """Return the configured environment with ``num_sessions`` sessions."""
    environment = _prepared(config)
    if isinstance(environment, PettingZooConfig):
        return make_pettingzoo(environment, num_sessions)
    from marec_env.env import make_vec

    return make_vec(environment, num_sessions)


def run_world(config: RunConfig) -> World:
    """Return the world of a run on the recommender, on the run's device."""
    from marec_env.world import build_world

    environment = _prepared(config)
    assert isinstance(environment, EnvironmentConfig)
    return build_world(environment)


def _prepared(config: RunConfig) -> EnvironmentConfig | PettingZooConfig:
    """Return the environment, on the run's device, once Ray is where its item shards are to be."""
    config = placed(config)
    environment = config.environment
    if isinstance(environment, EnvironmentConfig) and environment.pipeline.recall.shards > 1:
        import ray

        from agents.learners.ray_session import start_ray

        if not ray.is_initialized():  # a learner may hold by now what would be asked for again
            start_ray(config.sampling)  # nobody stops it: worlds stay for the process's life
    return environment


def evaluation_world(config: RunConfig) -> World:
    """Return the world in which a run on the recommender is evaluated.

    Raises:
        ConfigError: its components would see or decide other things than in training, or a metric
            is unknown.
    """
    from marec_env.registry import callable_at
    from marec_env.rewards.terms import TERMS
    from marec_env.simulator import Simulator

    for name in config.evaluation.metrics:
        callable_at("evaluation.metrics", TERMS, name)
    there = run_world(config.model_copy(update={"environment": config.evaluated_in}))
    if not config.evaluation.environment:
        return there
    worlds = (run_world(config), there)
    ours, theirs = (Simulator(world, 1) for world in worlds)
    for name in ("observation_spaces", "action_spaces"):
        if (here := getattr(ours, name)) != (there := getattr(theirs, name)):
            agent = next(
                agent for agent in {**here, **there} if here.get(agent) != there.get(agent)
            )
            raise ConfigError(
                f"evaluation.environment: {agent} would have other {name.replace('_', ' ')} there "
                f"({there.get(agent)}) than in training ({here.get(agent)}); keep what it sees and "
                "decides as it is"
            )
    return worlds[1]


def limit_threads(config: RunConfig) -> None:
    """Hold PyTorch to ``sampling.torch_threads`` before the first operation.

    Threads that compete for cores made building users five times slower, and sums in another
    order would keep a resumed run from repeating the uninterrupted one.
    """
    import torch

    if config.sampling.torch_threads is not None:
        torch.set_num_threads(config.sampling.torch_threads)


def side_by_side(config: RunConfig) -> bool:
    """Return whether seeds of this configuration train as one batch: the learner is of this
    process and of CUDA, where a step of many sessions takes about as long as one of few.
    """
    sampling = placed(config).sampling
    return (
        isinstance(config.environment, EnvironmentConfig)
        and isinstance(config.algorithm, PPOFamily)
        and not (sampling.num_env_runners or sampling.num_learners)
        and (sampling.device or "cpu").startswith("cuda")
    )


def build_trainers(config: RunConfig, seeds: Sequence[int]) -> list[Trainer]:
    """Return fresh trainers of a configuration's seeds (of several only where
    :func:`side_by_side`), or refuse what cannot be built.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as Ray announces; no warning
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    from agents.learners.trainer import Trainer

    factory = partial(make_environment, config)
    sampling = placed(config).sampling
    if len(seeds) == 1:
        return [Trainer(config.algorithm, sampling, seeds[0], factory)]
    assert isinstance(config.algorithm, PPOFamily)
    return Trainer.of_seeds(config.algorithm, sampling, seeds, factory)


def build_trainer(config: RunConfig) -> Trainer:
    """Return a fresh trainer of a run, or refuse what cannot be built."""
    return build_trainers(config, [config.seed])[0]


def input_hashes(config: RunConfig) -> dict[str, str]:
    """Return hashes by name of the log and the encoder weights that a run reads (where they are
    fitted, also as published), and of the topics that came of them here: processors round
    differently, and topics decide who the users are.
    """
    if isinstance(config.environment, PettingZooConfig):
        return {}
    from marec_env.embeddings.assets import weights_hash

    world, embeddings = run_world(config), config.environment.embeddings
    linked = world.knowledge.linked
    return {
        f"data ({config.environment.data.source})": world.log.fingerprint,
        "encoder weights": weights_hash(world.embeddings),
        **(
            {"encoder weights as published": weights_hash(embeddings)}
            if embeddings.finetune
            else {}
        ),
        **({"texts": world.texts.fingerprint} if world.texts.any else {}),
        **(
            {}
            if linked is None
            else {"links": hashlib.sha256(linked.cpu().numpy().tobytes()).hexdigest()}
        ),
        **({} if world.pictures is None else {"pictures": world.pictures.fingerprint}),
        TOPICS: hashlib.sha256(world.catalog.topics.cpu().numpy().tobytes()).hexdigest(),
    }


def told_of(config: RunConfig) -> tuple[Sequence[str], dict[str, Any] | None]:
    """Return what is unlikely about a run's log, and what its users are guaranteed, if anything:
    :attr:`marec_env.privacy.release.Release.statement`.
    """
    if isinstance(config.environment, PettingZooConfig):
        return (), None
    world = run_world(config)
    return world.log.warnings, None if world.release is None else world.release.statement
