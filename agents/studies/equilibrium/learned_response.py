"""A best response trained by the team's own learner, its partners frozen."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from agents.learners.config import (
    AlgorithmConfig,
    HAPPOConfig,
    IPPOConfig,
    MAPPOConfig,
    SamplingConfig,
)
from agents.learners.policy import TrainedPolicy
from agents.learners.trainer import Trainer
from marec_env.errors import ConfigError
from marec_env.evaluation.policies import TeamPolicy
from marec_env.rewards.config import DISCOUNT
from marec_env.vector import Action, VecStep, VectorEnv

__all__ = ["FrozenOthers", "single_agent", "train_response"]


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
    """Train one component against frozen partners, and return the response when half of the budget
    was spent, and at the end.

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
                half = copy.deepcopy(trainer.policy())
        final = copy.deepcopy(trainer.policy())
    finally:
        trainer.close()
    return half or final, final


class FrozenOthers:
    """A :class:`marec_env.vector.VectorEnv` whose single agent is one component of ``env``.

    Its reward is λ f_i + (1 − λ) F with the wrapped environment's metrics, whatever reward mode the
    frozen team was trained under.

    Args:
        env: the team's environment.
        component: who learns.
        partners: plays everybody else; a policy with memory must be a
            :class:`agents.learners.policy.TrainedPolicy`, which forgets the sessions that ended.
        own_share: λ.

    Raises:
        ConfigError: the component is not an agent of the environment.
    """

    def __init__(
        self, env: VectorEnv, component: str, partners: TeamPolicy, own_share: float = 1.0
    ) -> None:
        if component not in env.agents:
            raise ConfigError(f"no component '{component}'; there are {', '.join(env.agents)}")
        self.env, self.component, self.partners = env, component, partners
        self.own_share = own_share
        self.num_envs = env.num_envs
        self.agents: tuple[str, ...] = (component,)
        self.turns: tuple[tuple[str, ...], ...] = ((component,),)
        self.observation_spaces = {component: env.observation_spaces[component]}
        self.action_spaces = {component: env.action_spaces[component]}
        self.state_space, self.observe, self.close = env.state_space, env.observe, env.close
        # Partners hold no state.
        self.state_dict, self.load_state_dict = env.state_dict, env.load_state_dict
        self._turn = next(i for i, turn in enumerate(env.turns) if component in turn)
        self._actions: dict[str, Action] = {}

    def reset(self, seed: int) -> VecStep:
        """See :class:`marec_env.vector.VectorEnv`."""
        step = self.env.reset(seed)
        self.partners.reset()
        return self._presented(step)

    def act(self, actions: Mapping[str, Action]) -> None:
        """See :class:`marec_env.vector.VectorEnv`."""
        self._actions = dict(actions)

    def advance(self) -> VecStep:
        """Let the partners of this turn and the later ones act, then close the step."""
        turn = self.env.turns[self._turn]
        self.env.act({**self._partners_act(turn), **self._actions})
        for later in self.env.turns[self._turn + 1 :]:
            self.env.act(self._partners_act(later))
        step = self.env.advance()
        if isinstance(self.partners, TrainedPolicy):
            self.partners.reset(step.terminated | step.truncated)
        return self._presented(step)

    def step(self, actions: Mapping[str, Action]) -> VecStep:
        """See :class:`marec_env.vector.VectorEnv`."""
        self.act(actions)
        return self.advance()

    @torch.no_grad()
    def _partners_act(self, turn: tuple[str, ...]) -> dict[str, Action]:
        others = {agent: self.env.observe(agent) for agent in turn if agent != self.component}
        return self.partners.act(others) if others else {}

    def _presented(self, step: VecStep) -> VecStep:
        """Play the turns before the component's and return its view of the step."""
        for earlier in self.env.turns[: self._turn]:
            self.env.act(self._partners_act(earlier))
        name = self.component
        reward = step.rewards[name]
        if step.metrics:
            own, team = step.metrics[f"objective/{name}"], step.metrics["team_reward"]
            reward = self.own_share * own + (1.0 - self.own_share) * team
        return replace(
            step,
            observations={name: self.env.observe(name)},
            rewards={name: reward},
            final_observations={name: step.final_observations[name]},
            active={a: v for a, v in step.active.items() if a == name},
            action_masks={a: v for a, v in step.action_masks.items() if a == name},
        )
