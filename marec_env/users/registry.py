"""User models by name, and :func:`make_users`, which builds one."""

from __future__ import annotations

from typing import Protocol

import torch

from marec_env.catalog.population import Population
from marec_env.errors import ConfigError
from marec_env.registry import Registry
from marec_env.users.base import Users
from marec_env.users.checks import check_population
from marec_env.users.classic.interest_evolution import InterestEvolutionUsers
from marec_env.users.classic.kuaisim import KuaiSimUsers
from marec_env.users.classic.long_term_satisfaction import LongTermSatisfactionUsers
from marec_env.users.composed import ComposedUsers
from marec_env.users.config import UsersConfig

__all__ = ["USER_MODELS", "MarecUsers", "UsersFactory", "make_users"]


class UsersFactory(Protocol):
    """A class or function that builds batched users."""

    def __call__(
        self, config: UsersConfig, population: Population, num_sessions: int, device: torch.device
    ) -> Users:
        """Return ``num_sessions`` users of the population on the device."""
        ...


USER_MODELS: Registry[UsersFactory] = Registry("user model")

MarecUsers = ComposedUsers
"""The default preset is the composition of modules that the default configuration names."""

USER_MODELS.register("marec")(ComposedUsers)
USER_MODELS.register("recsim/interest_evolution")(InterestEvolutionUsers)
USER_MODELS.register("recsim/long_term_satisfaction")(LongTermSatisfactionUsers)
USER_MODELS.register("kuaisim")(KuaiSimUsers)


def make_users(
    config: UsersConfig,
    population: Population,
    num_sessions: int,
    device: torch.device | str = "cpu",
) -> Users:
    """Build the users that a configuration names.

    Args:
        config: the section ``users``.
        population: who they are; refused if damaged.
        num_sessions: B, at least 1.
        device: where their tensors live; the population's tensors must be there.

    Raises:
        ConfigError: ``num_sessions`` below 1, an unknown model, or a damaged population.
    """
    if num_sessions < 1:
        raise ConfigError(f"num_sessions is {num_sessions}; allowed: at least 1")
    check_population(population)
    return USER_MODELS.get(config.model)(config, population, num_sessions, torch.device(device))
