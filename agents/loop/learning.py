"""Learning from a log alone: the team's own losses, on decisions that were served.

Every decision of every component counts by the probability ratio of the policy that learns to the
one that was served, clipped as PPO clips it (Schulman et al., arXiv 1707.06347): the log is one
large batch, whose ratios are relative to the log's propensities however often it is passed over.
The clip is what keeps the team where the log can tell of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from agents.learners.config import ComponentOverrides, PPOFamily, SamplingConfig
from agents.learners.networks import Actor
from agents.learners.policy import TrainedPolicy
from agents.loop.exposure import ExposureLog, as_rollout
from marec_env.rewards.config import RewardConfig

__all__ = ["keep_scale", "learn_from_log", "of_networks"]


def learn_from_log(
    log: ExposureLog,
    policy: TrainedPolicy,
    algorithm: PPOFamily,
    rewards: RewardConfig,
    *,
    passes: int = 4,
    critic_passes: int = 8,
    seed: int = 0,
    critics: Mapping[str, Any] | None = None,
    say: Callable[[dict[str, float]], None] = lambda found: None,
) -> tuple[dict[str, Actor], dict[str, Any]]:
    """Return actors that have learned from a log, and their critics.

    Args:
        log: of the team that begins.
        policy: it; its networks are left as they are.
        algorithm: with whose losses, epochs and rates; actors stay as they are.
        rewards: what a click and staying are worth.
        passes: updates of actors and critics, of ``algorithm.epochs`` each.
        critic_passes: updates of the critics alone before them, where ``critics`` are not given:
            advantages by an ignorant critic teach little.
        seed: of new critics and of mini-batches.
        critics: of an earlier call, to go on with.
        say: is told the learner's numbers after each pass.

    Raises:
        DataError: the log is of another team's decisions.
    """
    from agents.learners.algorithm import rllib_config
    from agents.learners.learner import TeamLearner
    from agents.learners.rl_modules import RolloutBatch

    log.require_team(policy.team)
    size = log.state.shape[2]
    box = spaces.Box(-np.inf, np.inf, (size,), np.float32)
    team = replace(policy.team, state_space=box)
    algorithm = of_networks(algorithm, policy)
    still = {
        name: ComponentOverrides(actor=actor.config, frozen=True)
        for name, actor in policy.actors.items()
    }
    frozen = algorithm.model_copy(update={"components": still})
    config = rllib_config(algorithm, SamplingConfig(), team, _no_environment, seed)
    config.learners(num_gpus_per_learner=0)
    config.learner_config_dict["device"] = torch.device("cpu")
    # RLlib seeds every global generator; the process that calls us keeps its own.
    with torch.random.fork_rng(devices=[]):
        learner = TeamLearner(config=config, module_spec=config.rl_module_spec)
        learner.build()
    actors = {name: learner.module[name].unwrapped().net for name in team.actors}
    for name, actor in actors.items():
        actor.load_state_dict(policy.actors[name].state_dict())
    values = [name for name in learner.module.keys() if name not in actors]  # noqa: SIM118
    if critics is not None:
        for name in values:
            learner.module[name].unwrapped().load_state_dict(critics[name])
    batch = RolloutBatch(as_rollout(log, rewards))
    warm = [frozen] * (critic_passes if critics is None else 0)
    for turn in [*warm, *[algorithm] * passes]:
        learner.algorithm = turn
        learner.update(batch=batch, timesteps={}, _no_metrics_reduce=True)
        keep_scale(actors, policy)
        say(learner.statistics)
    return actors, {n: learner.module[n].unwrapped().state_dict() for n in values}


def keep_scale(actors: Mapping[str, Actor], policy: TrainedPolicy) -> None:
    """Let actors scale what they observe as a policy's do: another scale would change every
    decision at once, past the clip.
    """
    for name, actor in actors.items():
        if (normaliser := actor.trunk.normaliser) is not None:
            scale = policy.actors[name].trunk.normaliser
            assert scale is not None
            normaliser.load_state_dict(scale.state_dict())


def of_networks(algorithm: PPOFamily, policy: TrainedPolicy) -> PPOFamily:
    """Return the algorithm with actors of the kind and size that a policy has."""
    actors = policy.actors
    own = {
        name: algorithm.components.get(name, ComponentOverrides()).model_copy(
            update={"actor": actor.config}
        )
        for name, actor in actors.items()
    }
    squashed = any(actor.squashed for actor in actors.values())
    changes = {
        "components": own,
        "box_distribution": "squashed" if squashed else "clipped",
        "agent_ids": any(actor.num_agents > 1 for actor in actors.values()),
    }
    return algorithm.model_copy(update=changes)


def _no_environment(sessions: int) -> Any:
    raise AssertionError("a log is all there is")
