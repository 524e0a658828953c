"""Rollouts: B sessions for T steps, as tensors ``[B, T, ...]``; of one team, or of several seeds'
teams, which play side by side in one environment.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from agents.learners.captured import Batch, CapturedStep
from agents.learners.networks import Actor
from agents.learners.team import TeamSpec
from marec_env import random
from marec_env.vector import VecStep, VectorEnv

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
    """Steps a vector environment with a team's actors, or each seed's share of it with its own.

    Draws of actions are keyed by (seed, session, lifetime step), so that nothing but the count of
    steps is needed to go on exactly, and a seed plays the same alone and beside others. Actors act
    where the environment is: those that learn on another device are copied.
    """

    def __init__(
        self,
        env: VectorEnv,
        team: TeamSpec,
        actors: Sequence[Mapping[str, Actor]],
        seeds: Sequence[int],
        index: int = 0,
        keep_next_observations: bool = False,
        capture: bool = True,
    ) -> None:
        """Args:
        env: the environment; it is reset here. Of several seeds each has as many of its sessions,
            one after another; it must then take a seed for each session (``begin``).
        team: agents and their actors.
        actors: each seed's networks by name, followed as they learn (copies after :meth:`sync`).
        seeds: of the environment and of the draws of actions.
        index: number of this collector among those that feed one learner.
        keep_next_observations: whether critics see observations.
        capture: on CUDA, choose actions by a graph: not where actors change but in place.
        """
        self.env = env
        self._team = team
        self._of = {agent: team.actor_of(agent) for agent in team.agents}
        self._keep_next = keep_next_observations
        self._steps = 0
        self._seeds = len(seeds)
        each = env.num_envs // self._seeds
        if self._seeds == 1:
            self._last = env.reset(seeds[0] + index)
        else:
            of_session = torch.tensor(seeds).repeat_interleave(each)
            self._last = env.begin(torch.arange(each).repeat(self._seeds), of_session)  # type: ignore[attr-defined]
        device = self._last.state.device
        self._learning = [dict(own) for own in actors]
        self._actors = [
            {
                name: actor
                if actor.head.weight.device == device
                else copy.deepcopy(actor).to(device)
                for name, actor in own.items()
            }
            for own in actors
        ]
        choose = self._choose
        self._chosen = CapturedStep(choose) if capture and device.type == "cuda" else choose
        sessions = torch.arange(each) + index * _KEY_STRIDE
        self._keys = torch.cat([random.session_keys(seed, sessions) for seed in seeds]).to(device)
        self._starts = torch.ones(env.num_envs, dtype=torch.bool, device=device)
        self._memory: dict[str, Tensor] = {}
        for agent in team.agents:
            size = self._acting(agent).memory_size
            if size:
                self._memory[agent] = torch.zeros(env.num_envs, size, device=device)

    def _acting(self, agent: str) -> Actor:
        """Return the first seed's actor of an agent; all have its form."""
        return self._actors[0][self._of[agent][0]]

    def sync(self) -> None:
        """Take over what actors on another device have learnt."""
        for learning, acting in zip(self._learning, self._actors, strict=True):
            for name, actor in learning.items():
                if acting[name] is not actor:
                    acting[name].load_state_dict(actor.state_dict())

    @property
    def coming(self) -> VecStep:
        """What the next decision will be made on."""
        return self._last

    def _draws(self, length: int) -> dict[str, Tensor]:
        """Return each agent's uniforms ``[T, B, lanes]`` for the whole rollout, in one call."""
        lanes = [self._acting(agent).distribution.num_uniforms for agent in self._team.agents]
        steps = torch.arange(self._steps, self._steps + length, device=self._keys.device)
        num_envs = self._keys.shape[0]
        draws = random.uniform(
            self._keys.repeat(length), steps.repeat_interleave(num_envs), _STREAM, sum(lanes)
        )
        pieces = torch.split(draws.view(length, num_envs, -1), lanes, dim=-1)
        return dict(zip(self._team.agents, pieces, strict=True))

    def collect(self, length: int) -> Rollout:
        """Return ``length`` steps of every session of the only seed."""
        (rollout,) = self.collect_each(length)
        return rollout

    @torch.no_grad()
    def collect_each(self, length: int) -> list[Rollout]:
        """Return ``length`` steps of every session, a rollout a seed."""
        draws = self._draws(length)
        team: dict[str, list[Tensor]] = {
            k: [] for k in ("state", "next_state", "terminated", "ended", "starts")
        }
        agents: dict[str, dict[str, list[Tensor]]] = {a: {} for a in self._team.agents}
        first_memory = {agent: memory.clone() for agent, memory in self._memory.items()}
        tally = _Tally(self._seeds)
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
            tally.add(step, ended)
        self._last = step
        self._steps += length
        stacked = {
            agent: {k: torch.stack(v, dim=1) for k, v in columns.items()}
            for agent, columns in agents.items()
        }
        for agent, memory in first_memory.items():
            stacked[agent]["memory"] = memory
        whole = {k: torch.stack(v, dim=1) for k, v in team.items()}
        rollouts = [Rollout(_rows(whole, rows), _rows(stacked, rows)) for rows in self._shares()]
        for seed, rollout in enumerate(rollouts):
            rollout.metrics = tally.means(seed, rollout)
        return rollouts

    def _shares(self) -> list[slice]:
        """Return each seed's sessions."""
        each = self.env.num_envs // self._seeds
        return [slice(seed * each, (seed + 1) * each) for seed in range(self._seeds)]

    def _seen(
        self, agent: str, observation: Tensor, step: VecStep, uniforms: Tensor
    ) -> dict[str, Tensor]:
        """Return what an agent decides on, as :meth:`_choose` takes it."""
        seen = {"observations": observation, "uniforms": uniforms}
        if agent in self._memory:
            memory = self._memory[agent]
            seen["memory"] = memory * (~self._starts).to(memory.dtype).unsqueeze(-1)
        mask = self._acting(agent).distribution.flat_mask(step.action_masks.get(agent))
        return seen if mask is None else {**seen, "masks": mask}

    def _choose(self, batch: Batch) -> dict[str, dict[str, Any]]:
        """Return per agent flat ``actions``, the form ``given`` to the environment,
        ``log_probabilities``, and the next ``memory`` of recurrent actors.
        """
        found: dict[str, dict[str, Any]] = {}
        for agent, seen in batch.items():
            name, index = self._of[agent]
            shares = {key: column.chunk(self._seeds) for key, column in seen.items()}
            made: dict[str, list[Tensor]] = {}
            for seed, actors in enumerate(self._actors):
                own = {key: columns[seed] for key, columns in shares.items()}
                inputs, memory = actors[name](own["observations"], own.get("memory"), index)
                mask, distribution = own.get("masks"), actors[name].distribution
                flat = distribution.sample(inputs, own["uniforms"], mask)
                log_p, _ = distribution.evaluate(inputs, flat, mask)
                _append(made, actions=flat, log_probabilities=log_p)
                if memory is not None:
                    _append(made, memory=memory)
            found[agent] = {k: torch.cat(v) if len(v) > 1 else v[0] for k, v in made.items()}
            found[agent]["given"] = self._acting(agent).distribution.to_env(found[agent]["actions"])
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
        for agent, columns in out.items():
            terminated, over = step.terminated, ended
            if agent in step.agent_terminated:
                # A team's end is each agent's: what ended an agent earlier does not end it again.
                terminated = step.agent_terminated[agent]
                over = terminated | step.agent_truncated[agent] | ended
            _append(columns, rewards=step.rewards[agent], terminated=terminated, ended=over)
            if self._keep_next:
                final, after = step.final_observations[agent], step.observations[agent]
                _append(columns, next_observations=torch.where(ended.unsqueeze(-1), final, after))

    def state_dict(self, seed: int = 0) -> dict[str, Any]:
        """Return the environment's state, the count of steps and the actors' memories, of the
        sessions of one seed (its place): what a collector of that seed alone continues from.
        """
        state = {
            "env": self.env.state_dict(),
            "starts": self._starts,
            "memory": dict(self._memory),
            "last": {name: getattr(self._last, name) for name in _LAST},
        }
        if self._seeds > 1:
            state = _rows(state, self._shares()[seed])
        return {**state, "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        self.env.load_state_dict(state["env"])
        self._steps = int(state["steps"])
        device = self._starts.device
        self._starts = state["starts"].to(device)
        self._memory = moved(state["memory"], device)
        for name in _LAST:
            setattr(self._last, name, moved(state["last"][name], device))


def _rows(value: Any, rows: slice) -> Any:
    """Return rows of every tensor in nested dicts and tuples."""
    if isinstance(value, Mapping):
        return {key: _rows(one, rows) for key, one in value.items()}
    if isinstance(value, tuple):
        return tuple(_rows(one, rows) for one in value)
    return value[rows]


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


class _Tally:
    """Step metrics and ended episodes of a rollout, kept apart by seed."""

    def __init__(self, seeds: int) -> None:
        self._seeds = seeds
        self._sums: dict[tuple[str, ...], Tensor] = {}
        """By the metrics' names, ``[names, seeds]``."""
        self._episodes: list[dict[str, list[tuple[Tensor, Tensor]]]] = [{} for _ in range(seeds)]
        """Of each seed by name: values and which of them count."""

    def add(self, step: VecStep, ended: Tensor) -> None:
        """Take in a step; ``ended`` bool ``[B]``."""
        if step.metrics:
            names, total = tuple(step.metrics), self._totals(list(step.metrics.values()))
            self._sums[names] = self._sums[names] + total if names in self._sums else total
        for name, values in step.episodes.items():
            if not values.numel():
                continue
            if len(values) == len(ended):
                # Of all sessions where counting those that ended would be waited for.
                pairs = zip(values.chunk(self._seeds), ended.chunk(self._seeds), strict=True)
            else:
                each = [len(values)]
                if self._seeds > 1:
                    each = ended.view(self._seeds, -1).sum(1).tolist()
                shares = torch.split(values, each)
                pairs = zip(shares, [torch.ones_like(v) > 0 for v in shares], strict=True)
            for episodes, pair in zip(self._episodes, pairs, strict=True):
                episodes.setdefault(name, []).append(pair)

    def _totals(self, values: list[Tensor]) -> Tensor:
        """Return sums of columns ``[B]`` by seed, by two launches off the CPU."""
        if values[0].device.type == "cpu":  # in the order of one sum, whatever stands beside
            return torch.stack(
                [torch.stack([s.sum() for s in value.chunk(self._seeds)]) for value in values]
            )
        return torch.stack(values).view(len(values), self._seeds, -1).sum(dim=2)

    def means(self, seed: int, rollout: Rollout) -> dict[str, float]:
        """Return a seed's means over its steps, and over its ended episodes."""
        found: dict[str, Tensor] = {}
        for names, totals in self._sums.items():
            for name, total in zip(names, totals[:, seed].unbind(), strict=True):
                found[name] = found[name] + total if name in found else total
        stepwise = set(found)
        for name, pairs in self._episodes[seed].items():
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
