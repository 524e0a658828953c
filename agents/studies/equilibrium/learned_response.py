"""A best response trained by the team's own learner, its partners frozen."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal

from agents.learners.config import (
    AlgorithmConfig,
    HAPPOConfig,
    IPPOConfig,
    MAPPOConfig,
    SamplingConfig,
)
from agents.learners.policy import TrainedPolicy
from agents.learners.trainer import Trainer
from agents.studies.equilibrium.frozen_others import FrozenOthers
from marec_env.evaluation.policies import TeamPolicy
from marec_env.rewards.config import DISCOUNT
from marec_env.vector import VectorEnv

__all__ = ["Start", "single_agent", "train_response"]

Start = Literal["current", "fresh"]


def single_agent(
    algorithm: AlgorithmConfig, component: str
) -> MAPPOConfig | IPPOConfig | HAPPOConfig:
    """Return the settings with which a component of a team learns alone.

    The team's own learner where it is of the PPO family, with that component's overrides; MAPPO
    otherwise. Neither cloning nor a schedule meant for the whole run is kept, and the responder
    looks ahead even where the team did not: gains are judged as sums over the session.
    """
    family = (
        algorithm
        if isinstance(algorithm, MAPPOConfig | IPPOConfig | HAPPOConfig)
        else MAPPOConfig()
    )
    kept = {k: v for k, v in family.components.items() if k == component}
    return family.model_copy(
        update={
            "components": kept,
            "gamma": max(family.gamma, DISCOUNT),
            "share_parameters": False,
            "cloning": None,
            "decay_env_steps": None,
        }
    )


def train_response(
    make_env: Callable[[int], VectorEnv],
    component: str,
    partners: TeamPolicy,
    algorithm: AlgorithmConfig,
    sampling: SamplingConfig,
    env_steps: int,
    seed: int,
    own_share: float = 1.0,
    start: TrainedPolicy | None = None,
) -> tuple[TrainedPolicy, TrainedPolicy]:
    """Train one component against frozen partners.

    Args:
        make_env: number of sessions to the team's environment.
        component: who learns.
        partners: frozen.
        algorithm: the team's; see :func:`single_agent`.
        sampling: sessions and rollout length; runs in this process.
        env_steps: the budget; whole iterations that reach it are made.
        seed: of networks, users and draws.
        own_share: λ of the reward λ f_i + (1 − λ) F.
        start: a team whose actor of that component is the first policy; a fresh one otherwise.

    Returns:
        The response when half of the budget was spent, and at the end.
    """
    local = sampling.model_copy(update={"num_env_runners": 0, "num_learners": 0})
    trainer = Trainer(
        single_agent(algorithm, component),
        local,
        seed,
        lambda sessions: FrozenOthers(make_env(sessions), component, partners, own_share),
    )
    try:
        if start is not None:
            name, _ = start.team.actor_of(component)
            own = trainer.policy().actors[component]
            own.load_state_dict(start.actors[name].state_dict())
        half: TrainedPolicy | None = None
        while trainer.env_steps < env_steps:
            trainer.iterate()
            if half is None and 2 * trainer.env_steps >= env_steps:
                half = _snapshot(trainer)
        final = _snapshot(trainer)
    finally:
        trainer.close()
    return half or final, final


def _snapshot(trainer: Trainer) -> TrainedPolicy:
    policy: TrainedPolicy = trainer.policy()
    return copy.deepcopy(policy)
