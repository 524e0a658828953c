"""Pairs of items that the same user consumed, split so that nothing held out is trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from marec_env import random

__all__ = ["PairSplit", "co_consumed_pairs", "split_pairs"]


def co_consumed_pairs(user: Tensor, item: Tensor, window: int = 3) -> tuple[Tensor, Tensor]:
    """Return pairs of different items that a user consumed within ``window`` of one another.

    Args:
        user: int64 ``[R]``, sorted by user, then time.
        item: int64 ``[R]``.
        window: largest distance in a user's sequence, >= 1.

    Returns:
        int64 ``[P, 2]``, the earlier item first, and int64 ``[P]``, the pairs' users.
    """
    pairs, owners = [], []
    for distance in range(1, window + 1):
        first, second = slice(None, -distance), slice(distance, None)
        good = (user[first] == user[second]) & (item[first] != item[second])
        pairs.append(torch.stack([item[first][good], item[second][good]], dim=1))
        owners.append(user[first][good])
    return torch.cat(pairs), torch.cat(owners)


@dataclass(frozen=True, slots=True)
class PairSplit:
    """Pairs for training, and two held-out sets of users that training never saw."""

    train: Tensor
    """Int64 ``[P, 2]``: known users, known items."""
    warm: Tensor
    """Int64 ``[Q, 2]``: held-out users, items that training saw with others."""
    cold: Tensor
    """Int64 ``[S, 2]``: held-out users, second item never seen in training."""


def split_pairs(pairs: Tensor, owners: Tensor, share: float = 0.1, seed: int = 0) -> PairSplit:
    """Hold out a share of the users and, independently, of the items.

    Args:
        pairs: int64 ``[P, 2]``.
        owners: int64 ``[P]``.
        share: of users and of items, in (0, 1).
        seed: of both draws.
    """

    def held_out(members: Tensor, stream: str) -> Tensor:
        keys = random.session_keys(seed, members.flatten())
        return (random.uniform(keys, 0, stream, 1).squeeze(1) < share).view(members.shape)

    new_user = held_out(owners, "embeddings.pairs.users")
    new_item = held_out(pairs, "embeddings.pairs.items")
    return PairSplit(
        train=pairs[~new_user & ~new_item.any(dim=1)],
        warm=pairs[new_user & ~new_item.any(dim=1)],
        cold=pairs[new_user & new_item[:, 1]],
    )
