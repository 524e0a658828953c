"""A small population for the tests of users."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from marec_env.catalog.histories import Histories
from marec_env.users import Population
from marec_env.users.base import SCALARS, Draws, Shown


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
        history=Histories.of_rows(history, torch.rand(users, 8, generator=source) < 0.5),
        groups=torch.zeros(users, dtype=torch.int64),
        group_names=("all",),
    )


def shown_items(
    slate: torch.Tensor,
    clicks: torch.Tensor | None = None,
    topics: torch.Tensor | None = None,
    step: int = 0,
    draws: dict[int, torch.Tensor | float] | None = None,
    **values: torch.Tensor,
) -> Shown:
    """Return a slate shown to users who can get bored; draws by column, float32 ``[B]``."""
    sessions = len(slate)
    none = torch.zeros(sessions, dtype=torch.int64)
    given = {"users": none, "keys": none, "taste": torch.zeros(sessions, 1), **values}
    later = {name: given.pop(name) for name in ("engagement", "satisfaction") if name in given}
    given.setdefault("susceptibility", torch.ones(sessions))
    found = Shown(slate, slate if topics is None else topics, step=none + step, **given)
    found.found = {} if clicks is None else {"click": clicks}
    numbers = torch.full((sessions, SCALARS), 0.5)
    for column, draw in (draws or {}).items():
        numbers[:, column] = draw
    found.draws = Draws(numbers, numbers[:, :0], numbers[:, :0])
    for name, value in later.items():
        setattr(found, name, value)
    return found


@pytest.fixture
def population() -> Population:
    return small_population()
