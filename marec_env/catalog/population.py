"""Who the users are and what they like: hidden from the recommender."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from marec_env.catalog.histories import Histories

_MANY_ITEMS, _SOME_ITEMS = (
    1 << 16,
    1 << 13,
)  # too large a catalog for rows of it; what stands for it
_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, fill (0, 1) evenly (Weyl's sequence)


def thinned(users: int, items: int, cells: int) -> tuple[slice, slice | Tensor]:
    """Return which of the users, and of the items, stand for all in a mean over both.

    Users are thinned by even strides until at most so many ``cells`` are left; items of a large
    catalog before that, spread so that no period of their order is met.
    """
    some: slice | Tensor = slice(None)
    if items > _MANY_ITEMS:
        spread = (torch.arange(_SOME_ITEMS, dtype=torch.float64) * _GOLDEN) % 1.0
        some, items = (spread * items).to(torch.int64), _SOME_ITEMS
    return slice(None, None, max(1, -(-users * items // cells))), some


@dataclass(frozen=True, slots=True)
class Population:
    """``U`` users over ``N`` items in a true factor space of ``d`` dimensions.

    The click logit of an examined item is ``scale * (u . x) + quality + intercept`` less boredom;
    ``scale`` and ``intercept`` are calibrated on the log.
    """

    user_factors: Tensor
    """Float32 ``[U, d]``, unit length."""
    item_factors: Tensor
    """Float32 ``[N, d]``, unit length, with a configured share of topic identity."""
    quality: Tensor
    """Float32 ``[N]``: the item's contribution to the logit for everyone."""
    scale: float
    intercept: float
    topics: Tensor
    """Int64 ``[N]``: the topics by which users get bored."""
    num_topics: int
    history: Histories
    """What each user consumed before."""
    groups: Tensor
    """Int64 ``[U]``: a group for fairness reports (0 everywhere if unknown)."""
    group_names: tuple[str, ...]
    providers: Tensor | None = None
    """Int64 ``[N]``: who offers the item, ``0 ... P - 1``; needed only where supply is enabled or
    providers wear out."""
    friends: Tensor | None = None
    """Int64 ``[F, 2]``, pairs of users who are friends, each both ways; ``None`` if the log
    does not say: then those of like taste are befriended."""
    item_attributes: dict[str, Tensor] = field(default_factory=dict)
    """Further numbers of each item, ``[N]``: ``price``, ``length_minutes``, ``bid``, ``risk``."""
    user_attributes: dict[str, Tensor] = field(default_factory=dict)
    """Further numbers of each user, ``[U]``: ``risk_limit``."""

    @property
    def num_users(self) -> int:
        """The number of users, U."""
        return self.user_factors.shape[0]

    @property
    def num_items(self) -> int:
        """The number of items, N."""
        return self.item_factors.shape[0]
