"""Rollouts: B sessions for T steps, as tensors ``[B, T, ...]``."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from agents.learners.captured import Batch, CapturedStep
from agents.learners.networks import Actor
from agents.learners.team import TeamSpec
from marec_env import random
from marec_env.vector import VecStep, VectorEnv

__all__ = ["Collector", "Rollout", "moved"]

_STREAM = "collector/actions"
_LAST = ("observations", "state", "active", "action_masks")
"""What the next decision needs of a step."""
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

    @property
    def decisions(self) -> int:
        """Active agents, summed over sessions and time."""
        return int(torch.stack([data["active"].sum() for data in self.agents.values()]).sum())


class Collector:
    """Steps a vector environment with the team's actors.

    Draws of actions are keyed by (seed, session, lifetime step), so that nothing but the count of
    steps is needed to go on exactly. Actors act where the environment is: those that learn on
    another device are copied.
    """

    def __init__(
        self,
        env: VectorEnv,
        team: TeamSpec,
        actors: Mapping[str, Actor],
        seed: int,
        index: int = 0,
        keep_next_observations: bool = False,
        capture: bool = True,
    ) -> None:
        """Args:
        env: the environment; it is reset here.
        team: agents and their actors.
        actors: networks by name, followed as they learn (copies after :meth:`sync`).
        seed: of the environment and of the draws of actions.
        index: number of this collector among those that feed one learner.
        keep_next_observations: whether critics see observations.
        capture: on CUDA, choose actions by a graph: not where actors change but in place.
        """
        self.env = env
        self._team = team
        self._of = {agent: team.actor_of(agent) for agent in team.agents}
        self._keep_next = keep_next_observations
        self._steps = 0
        sessions = torch.arange(env.num_envs) + index * _KEY_STRIDE
        self._last = env.reset(seed + index)
        device = self._last.state.device
        self._learning = dict(actors)
        self._actors = {
            name: actor if actor.head.weight.device == device else copy.deepcopy(actor).to(device)
            for name, actor in actors.items()
        }
        choose = self._choose
        self._chosen = CapturedStep(choose) if capture and device.type == "cuda" else choose
        self._keys = random.session_keys(seed, sessions).to(device)
        self._starts = torch.ones(env.num_envs, dtype=torch.bool, device=device)
        self._memory: dict[str, Tensor] = {}
        for agent in team.agents:
            size = actors[self._of[agent][0]].memory_size
            if size:
                self._memory[agent] = torch.zeros(env.num_envs, size, device=device)

    def sync(self) -> None:
        """Take over what actors on another device have learnt."""
        for name, actor in self._learning.items():
            if self._actors[name] is not actor:
                self._actors[name].load_state_dict(actor.state_dict())

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
        sums: dict[tuple[str, ...], Tensor] = {}
        episodes: dict[str, list[tuple[Tensor, Tensor]]] = {}
        step = self._last
        for t in range(length):
            team["state"].append(step.state)
            team["starts"].append(self._starts)
            for turn, members in enumerate(self._team.turns):
                seen = {
                    agent: self._seen(
                        agent,
                        step.observations[agent] if turn == 0 else self.env.observe(agent),
                        step,
                        draws[agent][t],
                    )
                    for agent in members
                }
                chosen = self._chosen(seen)
                for agent in members:
                    self._record_decision(agent, seen[agent], chosen[agent], step, agents[agent], t)
                self.env.act({agent: chosen[agent]["given"] for agent in members})
            step = self.env.advance()
            ended = step.terminated | step.truncated
            team["next_state"].append(step.final_state)
            team["terminated"].append(step.terminated)
            team["ended"].append(ended)
            self._record_outcome(step, ended, agents)
            self._starts = ended
            if step.metrics:
                names, total = tuple(step.metrics), _totals(list(step.metrics.values()))
                sums[names] = sums[names] + total if names in sums else total
            for name, value in step.episodes.items():
                if value.numel():
                    # Of all sessions where counting those that ended would be waited for.
                    counted = ended if len(value) == len(ended) else torch.ones_like(value) > 0
                    episodes.setdefault(name, []).append((value, counted))
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

    def _seen(
        self, agent: str, observation: Tensor, step: VecStep, uniforms: Tensor
    ) -> dict[str, Tensor]:
        """Return what an agent decides on, as :meth:`_choose` takes it."""
        seen = {"observations": observation, "uniforms": uniforms}
        if agent in self._memory:
            memory = self._memory[agent]
            seen["memory"] = memory * (~self._starts).to(memory.dtype).unsqueeze(-1)
        distribution = self._actors[self._of[agent][0]].distribution
        mask = distribution.flat_mask(step.action_masks.get(agent))
        return seen if mask is None else {**seen, "masks": mask}

    def _choose(self, batch: Batch) -> dict[str, dict[str, Any]]:
        """Return per agent flat ``actions``, the form ``given`` to the environment,
        ``log_probabilities``, and the next ``memory`` of recurrent actors.
        """
        found = {}
        for agent, seen in batch.items():
            actor_name, index = self._of[agent]
            actor = self._actors[actor_name]
            inputs, memory = actor(seen["observations"], seen.get("memory"), index)
            mask = seen.get("masks")
            flat = actor.distribution.sample(inputs, seen["uniforms"], mask)
            log_p, _ = actor.distribution.evaluate(inputs, flat, mask)
            given = actor.distribution.to_env(flat)
            found[agent] = {"actions": flat, "given": given, "log_probabilities": log_p}
            if memory is not None:
                found[agent]["memory"] = memory
        return found

    def _record_decision(
        self, agent: str, seen: Mapping[str, Tensor], chosen: Mapping[str, Any], step: VecStep,
        columns: dict[str, list[Tensor]], t: int,
    ) -> None:  # fmt: skip
        if "memory" in chosen:
            self._memory[agent] = chosen["memory"]
        active = step.active.get(agent)
        _append(
            columns,
            observations=seen["observations"],
            actions=chosen["actions"],
            log_probabilities=chosen["log_probabilities"],
            active=torch.ones_like(self._starts) if active is None else active,
        )
        if "masks" in seen:
            masks = columns.setdefault("masks", [])
            # An environment may show its first mask in the middle of a rollout.
            masks.extend([torch.ones_like(seen["masks"])] * (t - len(masks)))
            masks.append(seen["masks"])

    def _record_outcome(
        self, step: VecStep, ended: Tensor, out: dict[str, dict[str, list[Tensor]]]
    ) -> None:
        own_terminated: Mapping[str, Tensor] = getattr(step, "agent_terminated", {})
        own_truncated: Mapping[str, Tensor] = getattr(step, "agent_truncated", {})
        for agent, columns in out.items():
            terminated, over = step.terminated, ended
            if agent in own_terminated:
                # A team's end is each agent's: what ended an agent earlier does not end it again.
                terminated = own_terminated[agent]
                over = terminated | own_truncated[agent] | ended
            _append(columns, rewards=step.rewards[agent], terminated=terminated, ended=over)
            if self._keep_next:
                final, after = step.final_observations[agent], step.observations[agent]
                _append(columns, next_observations=torch.where(ended.unsqueeze(-1), final, after))

    def state_dict(self) -> dict[str, Any]:
        """Return the environment's state, the count of steps and the actors' memories."""
        return {
            "env": self.env.state_dict(),
            "steps": self._steps,
            "starts": self._starts,
            "memory": dict(self._memory),
            "last": {name: getattr(self._last, name) for name in _LAST},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        self.env.load_state_dict(state["env"])
        self._steps = int(state["steps"])
        device = self._starts.device
        self._starts = state["starts"].to(device)
        self._memory = moved(state["memory"], device)
        for name in _LAST:
            setattr(self._last, name, moved(state["last"][name], device))


def _totals(values: list[Tensor]) -> Tensor:
    """Return the sum of each of some columns ``[B]``, by two launches off the CPU."""
    if values[0].device.type == "cpu":  # in the order of one sum, whatever stands beside
        return torch.stack([value.sum() for value in values])
    return torch.stack(values).sum(dim=1)


def _append(columns: dict[str, list[Tensor]], **values: Tensor) -> None:
    for key, value in values.items():
        columns.setdefault(key, []).append(value)


def moved(value: Any, device: torch.device) -> Any:
    """Return nested dicts and tuples with their tensors on a device."""
    if isinstance(value, Mapping):
        return {key: moved(one, device) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return tuple(moved(one, device) for one in value)
    return value.to(device)


def _means(
    sums: Mapping[tuple[str, ...], Tensor],
    episodes: Mapping[str, list[tuple[Tensor, Tensor]]],
    rollout: Rollout,
) -> dict[str, float]:  # fmt: skip
    found: dict[str, Tensor] = {}
    for names, totals in sums.items():
        for name, total in zip(names, totals.unbind(), strict=True):
            found[name] = found[name] + total if name in found else total
    stepwise = set(found)
    for name, pairs in episodes.items():
        values, counted = (torch.cat(column) for column in zip(*pairs, strict=True))
        whole = torch.where(counted, values, 0.0).to(torch.float64)
        found[f"episode/{name}"] = whole.sum() / counted.sum()
    found["episodes_ended"] = rollout.team["ended"].sum()
    for agent, columns in rollout.agents.items():
        found[f"reward/{agent}"] = columns["rewards"].mean()
    # One copy from the device; float64 holds all of them exactly.
    numbers = torch.stack([value.to(torch.float64) for value in found.values()]).tolist()
    metrics: dict[str, float] = dict(zip(found, numbers, strict=True))
    return {
        name: value / rollout.env_steps if name in stepwise else value
        for name, value in metrics.items()
        if metrics["episodes_ended"] or not name.startswith("episode/")
    }
