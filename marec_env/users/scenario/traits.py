"""Traits of the users that no factor holds, and attributes that scenarios need."""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env import random
from marec_env.catalog.population import Population
from marec_env.errors import ConfigError

__all__ = ["needed_attribute", "trait"]


def trait(population: Population, name: str) -> Tensor:
    """Return a standard normal number of each user, float32 ``[U]``: the same in every session."""
    users = torch.arange(population.num_users, device=population.user_factors.device)
    return random.normal(random.session_keys(0, users), 0, f"users/trait/{name}", 1).squeeze(1)


def needed_attribute(population: Population, name: str, what_for: str) -> Tensor:
    """Return an item attribute, float32 ``[N]``.

    Raises:
        ConfigError: the population has none of that name; says what needs it and what there is.
    """
    found = population.item_attributes.get(name)
    if found is None:
        there = ", ".join(sorted(population.item_attributes)) or "none"
        raise ConfigError(
            f"{what_for} needs the item attribute '{name}', which the data lack (there: {there}); "
            "choose a data.source that has it or switch this off"
        )
    return found
