"""Small logs for the tests of this area."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from marec_env.data.config import DataConfig, SyntheticConfig
from marec_env.data.log import InteractionLog, load_log, make_log


def small_log(
    user: list[int], item: list[int], rating: list[float], time: list[int], items: int | None = None
) -> InteractionLog:
    """Return a log of the given rows."""
    users, count = max(user) + 1, items or max(item) + 1
    return make_log(
        user=torch.tensor(user),
        item=torch.tensor(item),
        rating=torch.tensor(rating),
        time=torch.tensor(time),
        user_ids=tuple(f"u{n}" for n in range(users)),
        item_ids=tuple(f"i{n}" for n in range(count)),
        titles=tuple(f"Item {n}" for n in range(count)),
        texts=tuple(f"Item {n}" for n in range(count)),
        genres=((),) * count,
        year=torch.full((count,), -1),
        like_threshold=4.0,
        group=torch.zeros(users, dtype=torch.int64),
        group_names=("all",),
        fingerprint="0",
        sources={},
    )


def block_log(blocks: int = 4, users: int = 80, items: int = 60, seed: int = 0) -> InteractionLog:
    """Return a log whose users consume and like mostly the items of their own block."""
    generator = torch.Generator().manual_seed(seed)
    near = torch.arange(users)[:, None] % blocks == torch.arange(items) % blocks
    consumed = torch.rand(users, items, generator=generator) < torch.where(near, 0.7, 0.05)
    user, item = torch.nonzero(consumed, as_tuple=True)
    rating = torch.where(near[user, item], 5.0, 2.0)
    time = torch.randint(0, 10**6, user.shape, generator=generator)
    return small_log(user.tolist(), item.tolist(), rating.tolist(), time.tolist(), items)


@pytest.fixture
def make_small() -> Callable[..., InteractionLog]:
    return small_log


@pytest.fixture
def blocks() -> InteractionLog:
    return block_log()


@pytest.fixture(scope="session")
def ecommerce() -> InteractionLog:
    sizes = SyntheticConfig(num_users=300, num_items=400, days=20, seed=3)
    return load_log(DataConfig(source="synthetic/ecommerce", synthetic=sizes))
