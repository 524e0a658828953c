"""The interaction log: the one form in which every source of data enters marec."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from marec_env.errors import DataError


@dataclass(frozen=True, slots=True)
class Impressions:
    """``M`` items shown by the platform that made the log, clicked or not."""

    user: Tensor
    """Int64 ``[M]``, position in :attr:`InteractionLog.user_ids`."""
    item: Tensor
    """Int64 ``[M]``, position in :attr:`InteractionLog.item_ids`."""
    time: Tensor
    """Int64 ``[M]``, seconds since 1970."""
    position: Tensor
    """Int64 ``[M]``, place in its slate, from 0."""
    propensity: Tensor
    """Float32 ``[M]`` in (0, 1]: probability with which the platform put this item at this place,
    given the places above it; NaN where the source does not say."""
    behaviours: dict[str, Tensor]
    """Float32 ``[M]`` each, ``click`` always: 0/1 events, or amounts where there was a click."""


@dataclass(frozen=True, slots=True)
class InteractionLog:
    """``R`` interactions of ``U`` users with ``N`` items, sorted by user, then time.

    The same user may meet the same item several times. Items without interactions are allowed.
    """

    user: Tensor
    """Int64 ``[R]``, position in :attr:`user_ids`."""
    item: Tensor
    """Int64 ``[R]``, position in :attr:`item_ids`."""
    rating: Tensor
    """Float32 ``[R]``, in the source's units."""
    time: Tensor
    """Int64 ``[R]``, seconds since 1970."""
    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    """What an encoder reads: title, then genres, then the description."""
    genres: tuple[tuple[str, ...], ...]
    year: Tensor
    """Int64 ``[N]``, year of release; -1 if unknown."""
    like_threshold: float
    group: Tensor
    """Int64 ``[U]``, position in :attr:`group_names`."""
    group_names: tuple[str, ...]
    fingerprint: str
    """SHA-256 over the source's files, or over a generator's parameters."""
    sources: dict[str, str]
    """SHA-256 of each file by its name, for a run's manifest."""
    behaviours: dict[str, Tensor] = field(default_factory=dict)
    """Further numbers of each interaction, float32 ``[R]``: ``purchase``, ``watch_time`` ...; NaN
    where unknown."""
    item_attributes: dict[str, Tensor] = field(default_factory=dict)
    """Further numbers of each item, float32 ``[N]``: ``price``, ``length_minutes``, ``risk`` ...;
    NaN where unknown."""
    images: tuple[str, ...] = ()
    """File of each item's picture, within the source's folder, empty where it has none; of no item
    where the source knows of no pictures."""
    provider: Tensor | None = None
    """Int64 ``[N]``, who offers the item; ``None`` if the source does not say."""
    user_attributes: dict[str, Tensor] = field(default_factory=dict)
    """Further numbers of each user, float32 ``[U]``: ``risk_limit`` ...; NaN where unknown."""
    impressions: Impressions | None = None
    """What was shown, if the source says so; most public logs do not."""
    friends: Tensor | None = None
    """Int64 ``[F, 2]``, pairs of users (:attr:`user_ids`) who are friends, each both ways; ``None``
    if the source does not say."""
    warnings: tuple[str, ...] = ()
    """What is unlikely about the log as a whole, or was left out of it; one line each."""

    @property
    def num_users(self) -> int:
        """The number of users, U."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """The number of items, N."""
        return len(self.item_ids)

    @property
    def num_interactions(self) -> int:
        """The number of interactions, R."""
        return self.user.shape[0]

    @property
    def liked(self) -> Tensor:
        """Bool ``[R]``: the rating reaches :attr:`like_threshold`."""
        return self.rating >= self.like_threshold

    def select(self, rows: Tensor) -> InteractionLog:
        """Return the interactions where bool ``[R]`` holds, or int64 positions in their order.

        Users and items stay as they are; impressions, which the rows say nothing of, are dropped.
        """
        return replace(
            self,
            user=self.user[rows],
            item=self.item[rows],
            rating=self.rating[rows],
            time=self.time[rows],
            behaviours={name: values[rows] for name, values in self.behaviours.items()},
            impressions=None,
        )


def lexicographic(*keys: Tensor) -> Tensor:
    """Return the order of ``[R]`` rows by the last key, then the one before it, and so on."""
    order = torch.arange(keys[0].numel(), device=keys[0].device)
    for key in keys:
        order = order[torch.argsort(key[order], stable=True)]
    return order


def make_log(*, ties: tuple[Tensor, ...] = (), **fields: Any) -> InteractionLog:
    """Return a log with its interactions in the one order, whatever the order of the source.

    Args:
        ties: keys ``[R]`` by which interactions of one user and second are ordered, the last first;
            then come item and rating, so that even repeated rows have one order.
        **fields: of :class:`InteractionLog`.

    Raises:
        DataError: no interaction, no user or no item.
    """
    log = InteractionLog(**fields)
    if not (log.num_interactions and log.num_users and log.num_items):
        raise DataError("the log is empty: it needs at least one user, one item, one interaction")
    order = lexicographic(log.rating, log.item, *ties, log.time, log.user)
    ordered = log.select(order)
    return replace(ordered, rating=ordered.rating.to(torch.float32), impressions=log.impressions)


def without_gaps(attributes: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return attributes with the median of the known numbers in place of unknown ones (NaN).

    Those of which nothing is known are left out.
    """
    return {
        name: torch.where(values.isnan(), values.nanmedian(), values)
        for name, values in attributes.items()
        if not bool(values.isnan().all())
    }
