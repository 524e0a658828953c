"""What an encoder is fitted to: pairs of items, what is held out of them, and the losses."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from marec_env import random
from marec_env.data.interactions import InteractionLog
from marec_env.errors import DataError

_TEMPERATURE = 0.05  # divisor of the cosines, as in sentence-transformers' ranking loss (scale 20)
_WINDOW = 3  # largest distance of a pair in a user's sequence
_HELD_OUT = 0.1  # share of the users, and of the items


def pairs_of(log: InteractionLog, objective: str) -> Tensor:
    """Return what a log alone gives an objective, int64 ``[P, 2]``: items that the same users liked
    in succession (``co_click``), or each item with itself (``contrastive``).
    """
    if objective == "contrastive":
        return torch.arange(log.num_items).unsqueeze(1).expand(-1, 2).contiguous()
    liked = log.select(log.liked)
    return co_consumed_pairs(liked.user, liked.item)[0].contiguous()


def co_consumed_pairs(user: Tensor, item: Tensor, window: int = _WINDOW) -> tuple[Tensor, Tensor]:
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


class PairSplit(NamedTuple):
    """Pairs for training, and two held-out sets of users that training never saw, int64 ``[P, 2]``
    each.
    """

    train: Tensor
    """Known users, known items."""
    warm: Tensor
    """Held-out users, items that training saw with others."""
    cold: Tensor
    """Held-out users, second item never seen in training."""


def split_pairs(
    pairs: Tensor, owners: Tensor, share: float = _HELD_OUT, seed: int = 0
) -> PairSplit:
    """Hold out a share of the users, int64 ``[P]``, and, independently, of the pairs' items."""

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


def info_nce(
    left: Tensor,
    right: Tensor,
    items: Tensor,
    temperature: float = _TEMPERATURE,
    log_frequency: Tensor | None = None,
) -> Tensor:
    """Return the mean symmetric InfoNCE loss of a batch of pairs.

    Args:
        left: float32 ``[n, D]``, unit vectors.
        right: float32 ``[n, D]``, unit vectors; row i belongs to row i of ``left``.
        items: int64 ``[n, 2]``, the pairs' items; an item that equals the anchor or its partner is
            no negative.
        temperature: divisor of the cosines.
        log_frequency: float32 ``[n, 2]``, log of each item's share of all pairs, taken off the
            scores.
    """
    scores = left @ right.T / temperature
    own = torch.eye(len(items), dtype=torch.bool, device=items.device)
    labels = torch.arange(len(items), device=items.device)
    losses = []
    for table, anchor, other in ((scores, 0, 1), (scores.T, 1, 0)):
        if log_frequency is not None:
            table = table - log_frequency[:, other]
        same = (items[:, other] == items[:, other, None]) | (
            items[:, other] == items[:, anchor, None]
        )
        losses.append(functional.cross_entropy(table.masked_fill(same & ~own, -torch.inf), labels))
    return (losses[0] + losses[1]) / 2


def clicked_over_passed(
    anchor: Tensor, clicked: Tensor, passed: Tensor, temperature: float = _TEMPERATURE
) -> Tensor:
    """Return the mean loss of a batch in which a clicked item should be nearer to the anchor than
    one that was passed in the same slate: cross-entropy between the two, float32 ``[n, D]`` each,
    unit vectors.
    """
    return functional.softplus((anchor * (passed - clicked)).sum(1) / temperature).mean()


def retrieval_recall(vectors: Tensor, pairs: Tensor, k: int) -> float:
    """Return the share of pairs whose second item is among the k nearest to the first.

    Args:
        vectors: float32 ``[N, D]``, unit vectors of all items.
        pairs: int64 ``[P, 2]``, at least one; the first item is not among its own neighbours.
        k: >= 1.
    """
    if not len(pairs):
        raise DataError("there are no held-out pairs to measure recall on")
    scores = vectors[pairs[:, 0]] @ vectors.T
    own = scores.gather(1, pairs[:, 1:])
    scores.scatter_(1, pairs[:, :1], -torch.inf)
    return float(((scores > own).sum(dim=1) < k).float().mean())
