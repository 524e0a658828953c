"""The team's policy in plain torch: what the runner samples from and what evaluation runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from agents.learners.networks import Actor
from agents.learners.team import TeamSpec
from marec_env import random
from marec_env.vector import Action

__all__ = ["TrainedPolicy"]

_STREAM = "policy/actions"


class TrainedPolicy:
    """Acts for every agent of the team; needs no RLlib and no Ray.

    Recurrent actors remember from call to call; :meth:`reset` makes them forget.
    """

    def __init__(self, team: TeamSpec, actors: Mapping[str, Actor], seed: int = 0) -> None:
        """Args:
        team: agents and their actors.
        actors: networks by actor name.
        seed: of the draws of stochastic actions, where no uniforms are given.
        """
        self.team = team
        self.actors = dict(actors)
        self._of = {agent: team.actor_of(agent) for agent in team.agents}
        self._seed = seed
        self._step = 0
        self._memory: dict[str, Tensor] = {}

    def reset(self, sessions: Tensor | None = None) -> None:
        """Forget everywhere, or in the sessions of a bool mask ``[B]`` whose episodes ended."""
        if sessions is None:
            self._memory.clear()
            self._step = 0
            return
        for agent, memory in self._memory.items():
            self._memory[agent] = memory * (~sessions).to(memory.dtype).unsqueeze(-1)

    @torch.no_grad()
    def act(
        self,
        observations: Mapping[str, Tensor],
        deterministic: bool = True,
        uniforms: Mapping[str, Tensor] | None = None,
        action_masks: Mapping[str, Any] | None = None,
    ) -> dict[str, Action]:
        """Return the actions of the agents whose observations are given.

        Args:
            observations: per agent, ``[B, d_i]``.
            deterministic: take the most probable action rather than draw one.
            uniforms: per agent, ``[B, num_uniforms]`` draws in (0, 1) to sample from; without them
                draws follow from the policy's seed, the session's number and the count of calls.
            action_masks: per agent, as :attr:`marec_env.vector.VecStep.action_masks`.
        """
        actions: dict[str, Action] = {}
        for agent, observation in observations.items():
            actor_name, index = self._of[agent]
            actor = self.actors[actor_name]
            batch = observation.shape[0]
            memory = self._memory.get(agent)
            if actor.memory_size and (memory is None or memory.shape[0] != batch):
                memory = observation.new_zeros(batch, actor.memory_size)
            agent_id = actor.agent_id(index, (batch,), observation.device)
            inputs, memory = actor(observation, memory, agent_id)
            if memory is not None:
                self._memory[agent] = memory
            mask = actor.distribution.flat_mask((action_masks or {}).get(agent))
            if deterministic:
                flat = actor.distribution.mode(inputs, mask)
            else:
                draws = uniforms[agent] if uniforms else self._draws(agent, batch, inputs.device)
                flat = actor.distribution.sample(inputs, draws, mask)
            actions[agent] = actor.distribution.to_env(flat)
        self._step += 1
        return actions

    def _draws(self, agent: str, batch: int, device: torch.device) -> Tensor:
        keys = random.session_keys(self._seed, torch.arange(batch, device=device))
        lanes = self.actors[self._of[agent][0]].distribution.num_uniforms
        return random.uniform(keys, self._step, f"{_STREAM}/{agent}", lanes)
