"""Who is in the team and which agent acts with which actor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gymnasium import spaces

from agents.learners.config import ComponentOverrides, PPOFamilyConfig
from agents.learners.networks import Actor
from marec_env.errors import ConfigError, unknown_name
from marec_env.vector import VectorEnv


@dataclass(frozen=True)
class TeamSpec:
    """Agents, their spaces and their actors; small and picklable, without the environment."""

    agents: tuple[str, ...]
    turns: tuple[tuple[str, ...], ...]
    observation_spaces: Mapping[str, spaces.Box]
    action_spaces: Mapping[str, spaces.Space[Any]]
    state_space: spaces.Box
    actors: Mapping[str, tuple[str, ...]]
    """Per actor, the agents that act with it, in team order."""

    @classmethod
    def of(cls, env: VectorEnv, share_parameters: bool = False) -> TeamSpec:
        """Return the team of an environment.

        Args:
            env: read for its spaces only.
            share_parameters: whether agents with equal spaces share an actor.

        Raises:
            ConfigError: an observation space is not a flat Box.
        """
        for agent in env.agents:
            space = env.observation_spaces[agent]
            if not isinstance(space, spaces.Box) or len(space.shape) != 1:
                raise ConfigError(
                    f"observation space of '{agent}' is {space}; learners need a flat Box"
                    " (gymnasium.wrappers.FlattenObservation makes one)"
                )
        actors: dict[str, tuple[str, ...]] = {}
        if share_parameters:
            groups: list[list[str]] = []
            for agent in env.agents:
                for group in groups:
                    if _same_spaces(env, group[0], agent):
                        group.append(agent)
                        break
                else:
                    groups.append([agent])
            actors = {(f"shared_{g[0]}" if len(g) > 1 else g[0]): tuple(g) for g in groups}
        else:
            actors = {agent: (agent,) for agent in env.agents}
        return cls(
            agents=tuple(env.agents),
            turns=tuple(tuple(turn) for turn in env.turns),
            observation_spaces=dict(env.observation_spaces),
            action_spaces=dict(env.action_spaces),
            state_space=env.state_space,
            actors=actors,
        )

    def actor_of(self, agent: str) -> tuple[str, int]:
        """Return an agent's actor and the agent's number among those that share it."""
        for actor, agents in self.actors.items():
            if agent in agents:
                return actor, agents.index(agent)
        raise KeyError(agent)

    def overrides(self, config: PPOFamilyConfig, actor: str) -> ComponentOverrides:
        """Return the settings of an actor that differ from the team's."""
        for name in config.components:
            if name not in self.agents and name not in self.actors:
                raise ConfigError(
                    unknown_name("algorithm.components: component", name, self.agents)
                )
        return config.components.get(actor, ComponentOverrides())

    def build_actor(self, config: PPOFamilyConfig, actor: str) -> Actor:
        """Return a new actor network."""
        agents = self.actors[actor]
        return Actor(
            self.observation_spaces[agents[0]],
            self.action_spaces[agents[0]],
            self.overrides(config, actor).actor or config.actor,
            squashed=config.box_distribution == "squashed",
            initial_log_std=config.initial_log_std,
            num_agents=len(agents) if config.agent_ids else 1,
        )


def _same_spaces(env: VectorEnv, first: str, second: str) -> bool:
    return (
        env.observation_spaces[first].shape == env.observation_spaces[second].shape
        and env.action_spaces[first] == env.action_spaces[second]
    )
