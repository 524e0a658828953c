"""Behaviour cloning: actors imitate a given policy before reinforcement learning starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from agents.learners.collector import moved
from agents.learners.config import CloningConfig
from agents.learners.networks import Actor
from agents.learners.team import TeamSpec
from marec_env.errors import ConfigError, RunError
from marec_env.registry import load_object
from marec_env.vector import Action, VectorEnv

_MIN_LOG_STD = -1.5
"""Least log standard deviation that cloning leaves to Box actions, in units of half the bounds."""


class Demonstrator(Protocol):
    """What is imitated: a hand-set pipeline, a logged policy, another team."""

    def act(self, observations: Mapping[str, Tensor]) -> dict[str, Action]:
        """Act for the agents of one turn."""
        ...


def demonstrate(
    env: VectorEnv, policy: Demonstrator, team: TeamSpec, actors: Mapping[str, Actor], steps: int,
    seed: int,
) -> dict[str, tuple[Tensor, Tensor]]:  # fmt: skip
    """Return observations ``[N, d]`` and flat actions ``[N, width]`` of each agent's decisions.

    Args:
        env: reset here.
        policy: acts for the agents of each turn.
        team: who acts when.
        actors: their distributions say how actions are flattened.
        steps: env steps, rounded up to whole steps of all sessions.
        seed: of the environment.
    """
    step = env.reset(seed)
    seen: dict[str, tuple[list[Tensor], list[Tensor]]] = {a: ([], []) for a in team.agents}
    for _ in range(math.ceil(steps / env.num_envs)):
        for turn, members in enumerate(team.turns):
            views = {
                agent: step.observations[agent] if turn == 0 else env.observe(agent)
                for agent in members
            }
            actions = policy.act(views)
            for agent, view in views.items():
                actor = actors[team.actor_of(agent)[0]]
                there = moved((view, actions[agent]), actor.head.weight.device)
                flat = actor.distribution.from_env(there[1])
                keep = step.active.get(agent)
                for column, value in zip(seen[agent], (there[0], flat), strict=True):
                    column.append(value if keep is None else value[keep.to(value.device)])
            env.act(actions)
        step = env.advance()
    return {agent: (torch.cat(x), torch.cat(y)) for agent, (x, y) in seen.items()}


def clone(
    config: CloningConfig, env: VectorEnv, team: TeamSpec, actors: Mapping[str, Actor], seed: int
) -> dict[str, float]:
    """Fit actors to a policy by maximum likelihood, in place.

    Returns:
        the mean log-likelihood of the demonstrated actions as ``cloning/log_likelihood/<actor>``.

    Raises:
        ConfigError: the policy cannot be loaded, or an actor is recurrent.
        RunError: an actor diverged.
    """
    factory: Any = load_object(config.policy)
    if not callable(factory):
        raise ConfigError(f"algorithm.cloning.policy: '{config.policy}' is not a function")
    if any(actor.memory_size for actor in actors.values()):
        raise ConfigError("algorithm.cloning needs actors without recurrent_units")
    shown = demonstrate(env, factory(env), team, actors, config.env_steps, seed)
    generator = torch.Generator().manual_seed(seed)
    results = {}
    for name, actor in actors.items():
        rows = [shown[agent] for agent in team.actors[name]]
        observations = torch.cat([x for x, _ in rows])
        actions = torch.cat([y for _, y in rows])
        ids = [actor.agent_id(i, (len(x),), x.device) for i, (x, _) in enumerate(rows)]
        agent_id = None if ids[0] is None else torch.cat([i for i in ids if i is not None])
        if actor.trunk.normaliser is not None:
            actor.trunk.normaliser.update(observations)
        inputs = actor.trunk.normalise(observations)
        likelihood = _fit(actor, inputs, actions, agent_id, config, generator)
        if not math.isfinite(likelihood):
            raise RunError(
                f"cloning diverged: the likelihood of '{name}' is not finite; try a smaller"
                f" algorithm.cloning.learning_rate ({config.learning_rate:g})"
            )
        results[f"cloning/log_likelihood/{name}"] = likelihood
    return results


def _fit(
    actor: Actor,
    inputs: Tensor,
    actions: Tensor,
    agent_id: Tensor | None,
    config: CloningConfig,
    generator: torch.Generator,
) -> float:
    optimizer = torch.optim.Adam(actor.parameters(), lr=config.learning_rate)
    total = torch.zeros((), dtype=torch.float64, device=inputs.device)
    for _ in range(config.epochs):
        total.zero_()
        order = torch.randperm(len(inputs), generator=generator).to(inputs.device)
        for rows in torch.split(order, config.minibatch_size):
            extra = None if agent_id is None else agent_id[rows]
            log_p, _ = actor.distribution.evaluate(
                actor.decide(inputs[rows], None, extra)[0], actions[rows]
            )
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(-log_p.mean())
            optimizer.step()
            if actor.log_std is not None:
                # A deterministic demonstrator would drive the deviation to zero, and with it all
                # exploration.
                with torch.no_grad():
                    actor.log_std.clamp_(min=_MIN_LOG_STD)
            total += log_p.detach().sum()
    return float(total) / len(inputs)
