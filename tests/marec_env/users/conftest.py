"""A small population for the tests of users."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from marec_env.users import Population


def small_population(
    users: int = 20, items: int = 40, size: int = 6, topics: int = 4
) -> Population:
    source = torch.Generator().manual_seed(7)
    history = torch.randint(0, items, (users, 8), generator=source)
    history[0] = -1
    return Population(
        user_factors=normalize(torch.randn(users, size, generator=source), dim=1),
        item_factors=normalize(torch.randn(items, size, generator=source), dim=1),
        quality=0.2 * torch.randn(items, generator=source),
        scale=4.0,
        intercept=-0.5,
        topics=torch.arange(items) % topics,
        num_topics=topics,
        history=history,
        history_liked=torch.rand(users, 8, generator=source) < 0.5,
        groups=torch.zeros(users, dtype=torch.int64),
        group_names=("all",),
    )


@pytest.fixture
def population() -> Population:
    return small_population()
