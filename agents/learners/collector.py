"""Rollouts: B sessions for T steps, as tensors ``[B, T, ...]``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from agents.learners.networks import Actor
from agents.learners.team import TeamSpec
from marec_env import random
from marec_env.vector import VecStep, VectorEnv

__all__ = ["Collector", "Rollout"]

_STREAM = "collector/actions"
_KEY_STRIDE = 1 << 32  # runners' session numbers are this far apart


@dataclass
class Rollout:
    """Experience of one call of :meth:`Collector.collect`."""

    team: dict[str, Tensor]
    """``state``, ``next_state`` (before autoreset), ``terminated``, ``ended``, ``starts``;
    all ``[B, T, ...]``."""
    agents: dict[str, dict[str, Tensor]]
    """Per agent ``observations``, ``actions`` (flat), ``log_probabilities``, ``active``,
    ``rewards``, ``terminated`` and ``ended`` (own or the team's), and where used ``masks``,
    ``memory`` ``[B, M]`` (before the first step) and ``next_observations``."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Means of the step metrics, and of the episodes that ended as ``episode/<name>``."""

    @property
    def env_steps(self) -> int:
        """Steps of the environment: sessions × time."""
        return int(self.team["ended"].numel())


class Collector:
    """Steps a vector environment with the team's actors.

    Draws of actions are keyed by (seed, session, lifetime step), so that nothing but the count of
    steps is needed to go on exactly.
    """

    def __init__(
        self,
        env: VectorEnv,
        team: TeamSpec,
        actors: Mapping[str, Actor],
        seed: int,
        index: int = 0,
        keep_next_observations: bool = False,
    ) -> None:
        """Args:
        env: the environment; it is reset here.
        team: agents and their actors.
        actors: networks by name; changed in place by whoever syncs weights.
        seed: of the environment and of the draws of actions.
        index: number of this collector among those that feed one learner.
        keep_next_observations: whether critics see observations.
        """
        self.env = env
        self._team = team
        self._actors = actors
        self._of = {agent: team.actor_of(agent) for agent in team.agents}
        self._keep_next = keep_next_observations
        self._steps = 0
        sessions = torch.arange(env.num_envs) + index * _KEY_STRIDE
        self._last = env.reset(seed + index)
        device = self._last.state.device
        self._keys = random.session_keys(seed, sessions).to(device)
        self._starts = torch.ones(env.num_envs, dtype=torch.bool, device=device)
        self._memory: dict[str, Tensor] = {}
        for agent in team.agents:
            size = actors[self._of[agent][0]].memory_size
            if size:
                self._memory[agent] = torch.zeros(env.num_envs, size, device=device)

    @property
    def coming(self) -> VecStep:
        """What the next decision will be made on."""
        return self._last

    def _draws(self, length: int) -> dict[str, Tensor]:
        """Return each agent's uniforms ``[T, B, lanes]`` for the whole rollout, in one call."""
        lanes = [self._actors[self._of[a][0]].distribution.num_uniforms for a in self._team.agents]
        steps = torch.arange(self._steps, self._steps + length, device=self._keys.device)
        num_envs = self._keys.shape[0]
        draws = random.uniform(
            self._keys.repeat(length), steps.repeat_interleave(num_envs), _STREAM, sum(lanes)
        )
        pieces = torch.split(draws.view(length, num_envs, -1), lanes, dim=-1)
        return dict(zip(self._team.agents, pieces, strict=True))

    @torch.no_grad()
    def collect(self, length: int) -> Rollout:
        """Return ``length`` steps of every session."""
        draws = self._draws(length)
        team: dict[str, list[Tensor]] = {
            k: [] for k in ("state", "next_state", "terminated", "ended", "starts")
        }
        agents: dict[str, dict[str, list[Tensor]]] = {a: {} for a in self._team.agents}
        first_memory = {agent: memory.clone() for agent, memory in self._memory.items()}
        sums: dict[str, Tensor] = {}
        episodes: dict[str, list[Tensor]] = {}
        step = self._last
        for t in range(length):
            team["state"].append(step.state)
            team["starts"].append(self._starts)
            for turn, members in enumerate(self._team.turns):
                actions = {}
                for agent in members:
                    observation = step.observations[agent] if turn == 0 else self.env.observe(agent)
                    actions[agent] = self._decide(agent, observation, step, draws, t, agents)
                self.env.act(actions)
            step = self.env.advance()
            ended = step.terminated | step.truncated
            team["next_state"].append(step.final_state)
            team["terminated"].append(step.terminated)
            team["ended"].append(ended)
            self._record_outcome(step, ended, agents)
            self._starts = ended
            for name, value in step.metrics.items():
                sums[name] = sums[name] + value.sum() if name in sums else value.sum()
            for name, value in step.episodes.items():
                if value.numel():
                    episodes.setdefault(name, []).append(value)
        self._last = step
        self._steps += length
        stacked = {
            agent: {k: torch.stack(v, dim=1) for k, v in columns.items()}
            for agent, columns in agents.items()
        }
        for agent, memory in first_memory.items():
            stacked[agent]["memory"] = memory
        rollout = Rollout({k: torch.stack(v, dim=1) for k, v in team.items()}, stacked)
        rollout.metrics = _means(sums, episodes, rollout)
        return rollout

    def _decide(
        self,
        agent: str,
        observation: Tensor,
        step: VecStep,
        draws: Mapping[str, Tensor],
        t: int,
        out: dict[str, dict[str, list[Tensor]]],
    ) -> Any:
        """Choose one agent's actions, record them, and return the environment's form."""
        actor_name, index = self._of[agent]
        actor = self._actors[actor_name]
        memory = self._memory.get(agent)
        if memory is not None:
            memory = memory * (~self._starts).to(memory.dtype).unsqueeze(-1)
        agent_id = actor.agent_id(index, (observation.shape[0],), observation.device)
        inputs, memory = actor(observation, memory, agent_id)
        if memory is not None:
            self._memory[agent] = memory
        mask = actor.distribution.flat_mask(step.action_masks.get(agent))
        flat = actor.distribution.sample(inputs, draws[agent][t], mask)
        log_p, _ = actor.distribution.evaluate(inputs, flat, mask)
        active = step.active.get(agent)
        columns = out[agent]
        columns.setdefault("observations", []).append(observation)
        columns.setdefault("actions", []).append(flat)
        columns.setdefault("log_probabilities", []).append(log_p)
        columns.setdefault("active", []).append(
            torch.ones_like(self._starts) if active is None else active
        )
        if mask is not None:
            masks = columns.setdefault("masks", [])
            # An environment may show its first mask in the middle of a rollout.
            masks.extend([torch.ones_like(mask)] * (t - len(masks)))
            masks.append(mask)
        return actor.distribution.to_env(flat)

    def _record_outcome(
        self, step: VecStep, ended: Tensor, out: dict[str, dict[str, list[Tensor]]]
    ) -> None:
        own_terminated: Mapping[str, Tensor] = getattr(step, "agent_terminated", {})
        own_truncated: Mapping[str, Tensor] = getattr(step, "agent_truncated", {})
        for agent, columns in out.items():
            columns.setdefault("rewards", []).append(step.rewards[agent])
            if agent in own_terminated:
                # A team's end is each agent's: what ended an agent earlier does not end it again.
                own, cut = own_terminated[agent], own_truncated[agent]
                columns.setdefault("terminated", []).append(own)
                columns.setdefault("ended", []).append(own | cut | ended)
            else:
                columns.setdefault("terminated", []).append(step.terminated)
                columns.setdefault("ended", []).append(ended)
            if self._keep_next:
                after = torch.where(
                    ended.unsqueeze(-1), step.final_observations[agent], step.observations[agent]
                )
                columns.setdefault("next_observations", []).append(after)

    def state_dict(self) -> dict[str, Any]:
        """Return the environment's state, the count of steps and the actors' memories."""
        return {
            "env": self.env.state_dict(),
            "steps": self._steps,
            "starts": self._starts,
            "memory": dict(self._memory),
            "last": _pack(self._last),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        self.env.load_state_dict(state["env"])
        self._steps = int(state["steps"])
        self._starts = state["starts"].to(self._starts.device)
        self._memory = {k: v.to(self._starts.device) for k, v in state["memory"].items()}
        self._last = _unpack(state["last"], self._last)


def _pack(step: VecStep) -> dict[str, Any]:
    """Return what the next decision needs of a step."""
    return {
        "observations": dict(step.observations),
        "state": step.state,
        "active": dict(step.active),
        "action_masks": dict(step.action_masks),
    }


def _unpack(packed: Mapping[str, Any], like: VecStep) -> VecStep:
    device = like.state.device
    like.observations = {k: v.to(device) for k, v in packed["observations"].items()}
    like.state = packed["state"].to(device)
    like.active = {k: v.to(device) for k, v in packed["active"].items()}
    like.action_masks = {
        k: tuple(part.to(device) for part in v) if isinstance(v, tuple | list) else v.to(device)
        for k, v in packed["action_masks"].items()
    }
    return like


def _means(
    sums: Mapping[str, Tensor], episodes: Mapping[str, list[Tensor]], rollout: Rollout
) -> dict[str, float]:
    metrics = {name: float(total) / rollout.env_steps for name, total in sums.items()}
    for name, values in episodes.items():
        metrics[f"episode/{name}"] = float(torch.cat(values).to(torch.float64).mean())
    metrics["episodes_ended"] = float(rollout.team["ended"].sum())
    for agent, columns in rollout.agents.items():
        metrics[f"reward/{agent}"] = float(columns["rewards"].mean())
    return metrics
