"""Learning from a log alone: the team's own losses, on decisions that were served.

Every decision of every component counts by the probability ratio of the policy that learns to the
one that was served, clipped as PPO clips it (Schulman et al., arXiv 1707.06347): the log is one
large batch, whose ratios are relative to the log's propensities however often it is passed over.
The clip is what keeps the team where the log can tell of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from agents.learners.config import ComponentOverrides, PPOFamily, SamplingConfig
from agents.learners.networks import Actor
from agents.learners.policy import TrainedPolicy
from agents.learners.tree import load_tree, save_tree
from agents.loop.exposure import ExposureLog, as_rollout
from marec_env.rewards.config import RewardConfig

if TYPE_CHECKING:
    from agents.learners.learner import TeamLearner

Critics = Mapping[str, Mapping[str, Tensor]]
"""By name, a critic's weights and the statistics of values, as tensors."""


def learn_from_log(
    log: ExposureLog,
    policy: TrainedPolicy,
    algorithm: PPOFamily,
    rewards: RewardConfig,
    *,
    passes: int = 4,
    critic_passes: int = 8,
    seed: int = 0,
    critics: Critics | None = None,
    say: Callable[[dict[str, float]], None] = lambda found: None,
) -> tuple[dict[str, Actor], Critics]:
    """Return actors that have learned from a log, and their critics.

    Args:
        log: of the team that begins.
        policy: it; its networks are left as they are.
        algorithm: with whose losses, epochs and rates; actors stay as they are.
        rewards: what a click and staying are worth.
        passes: updates of actors and critics, of ``algorithm.epochs`` each.
        critic_passes: updates of new critics alone before them: advantages by an ignorant critic
            teach little.
        seed: of new critics and of mini-batches.
        critics: of an earlier call, to go on with; see :func:`take_over`.
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
    actors, went_on = take_over(learner, policy, critics)
    batch = RolloutBatch(as_rollout(log, rewards))
    warm = [frozen] * (0 if went_on else critic_passes)
    for turn in [*warm, *[algorithm] * passes]:
        learner.algorithm = turn
        learner.update(batch=batch, timesteps={}, _no_metrics_reduce=True)
        keep_scale(actors, policy)
        say(learner.statistics)
    return actors, critics_of(learner)


def take_over(
    learner: TeamLearner, policy: TrainedPolicy, critics: Critics | None
) -> tuple[dict[str, Actor], bool]:
    """Let a learner begin with a policy's actors, and with critics of an earlier round. Those that
    do not fit (of the other way to learn, which see other things, or of another size) are left out.

    Returns:
        its actors, and whether it goes on with the critics.
    """
    actors = {name: learner.module[name].unwrapped().net for name in learner.team.actors}
    for name, actor in actors.items():
        actor.load_state_dict(policy.actors[name].state_dict())
    fresh = critics_of(learner)
    if critics is None or _shapes(critics) != _shapes(fresh):
        return actors, False
    for name in fresh:
        learner.module[name].unwrapped().load_state_dict(critics[name])
    return actors, True


def critics_of(learner: TeamLearner) -> Critics:
    """Return a learner's critics."""
    modules = {name: learner.module[name].unwrapped() for name in learner.module.keys()}  # noqa: SIM118
    return {n: one.state_dict() for n, one in modules.items() if n not in learner.team.actors}


def _shapes(critics: Critics) -> dict[str, dict[str, torch.Size]]:
    return {name: {k: v.shape for k, v in state.items()} for name, state in critics.items()}


def keep_critics(bundle: Path, critics: Critics) -> None:
    """Keep a candidate's critics beside it (``films-1.critics.safetensors``), for the round that
    goes on from it.

    Raises:
        RunError: they cannot be written.
    """
    save_tree(bundle.parent, _beside(bundle), critics)


def kept_critics(bundle: Path) -> Critics | None:
    """Return the critics that :func:`keep_critics` has put beside a team; ``None``: there are none.

    Raises:
        RunError: they are damaged.
    """
    name = _beside(bundle)
    found: Critics | None = None
    if (bundle.parent / f"{name}.json").exists():
        found = load_tree(bundle.parent, name)
    return found


def _beside(bundle: Path) -> str:
    return f"{bundle.name}.critics"


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
