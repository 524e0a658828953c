"""The interaction log: the one form in which every source of data enters marec."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from marec_env.data.config import DataConfig
from marec_env.errors import DataError

__all__ = ["Impressions", "InteractionLog", "load_log", "make_log"]


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
    given the places above it; NaN if the source does not say."""
    behaviours: dict[str, Tensor]
    """Float32 ``[M]`` each, ``click`` always: 0/1 events, or amounts where there was a click."""


@dataclass(frozen=True, slots=True)
class InteractionLog:
    """``R`` interactions of ``U`` users with ``N`` items, sorted by (user, time, item).

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
    """Further numbers of each interaction, float32 ``[R]``: ``purchase``, ``watch_time`` ..."""
    item_attributes: dict[str, Tensor] = field(default_factory=dict)
    """Further numbers of each item, float32 ``[N]``: ``price``, ``length_minutes``, ``risk`` ..."""
    provider: Tensor | None = None
    """Int64 ``[N]``, who offers the item; ``None`` if the source does not say."""
    user_attributes: dict[str, Tensor] = field(default_factory=dict)
    """Further numbers of each user, float32 ``[U]``: ``risk_limit`` ..."""
    impressions: Impressions | None = None
    """What was shown, if the source says so; most public logs do not."""

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

    def select(self, mask: Tensor) -> InteractionLog:
        """Return the interactions where bool ``[R]`` holds.

        Users and items stay as they are; impressions, which the mask says nothing of, are dropped.
        """
        return replace(
            self,
            user=self.user[mask],
            item=self.item[mask],
            rating=self.rating[mask],
            time=self.time[mask],
            behaviours={name: values[mask] for name, values in self.behaviours.items()},
            impressions=None,
        )


def make_log(
    *,
    user: Tensor,
    item: Tensor,
    rating: Tensor,
    time: Tensor,
    user_ids: tuple[str, ...],
    item_ids: tuple[str, ...],
    titles: tuple[str, ...],
    texts: tuple[str, ...],
    genres: tuple[tuple[str, ...], ...],
    year: Tensor,
    like_threshold: float,
    group: Tensor,
    group_names: tuple[str, ...],
    fingerprint: str,
    sources: dict[str, str],
    behaviours: dict[str, Tensor] | None = None,
    item_attributes: dict[str, Tensor] | None = None,
    provider: Tensor | None = None,
    user_attributes: dict[str, Tensor] | None = None,
    impressions: Impressions | None = None,
) -> InteractionLog:
    """Return a log with its interactions in the one order, whatever the order of the source.

    Raises:
        DataError: no interaction, no user or no item.
    """
    if not (user.numel() and user_ids and item_ids):
        raise DataError("the log is empty: it needs at least one user, one item, one interaction")
    order = torch.arange(user.numel())
    # Stable sorts from the last key to the first give the lexicographic order; the rating comes
    # last of all, so that even repeated (user, time, item) rows have one order.
    for key in (rating, item, time, user):
        order = order[torch.argsort(key[order], stable=True)]
    return InteractionLog(
        user=user[order],
        item=item[order],
        rating=rating[order].to(torch.float32),
        time=time[order],
        user_ids=user_ids,
        item_ids=item_ids,
        titles=titles,
        texts=texts,
        genres=genres,
        year=year,
        like_threshold=like_threshold,
        group=group,
        group_names=group_names,
        fingerprint=fingerprint,
        sources=sources,
        behaviours={name: values[order] for name, values in (behaviours or {}).items()},
        item_attributes=item_attributes or {},
        provider=provider,
        user_attributes=user_attributes or {},
        impressions=impressions,
    )


def load_log(config: DataConfig) -> InteractionLog:
    """Return the log that the configuration names.

    Raises:
        DataError: a file is missing, empty, or has bad rows, unknown or duplicate identifiers.
        AssetError: the MovieLens package is missing or its files are not the known ones.
        ConfigError: the scenario of ``synthetic/<scenario>`` is unknown.
    """
    # Readers build logs, so they import this module; it imports them only when one is asked for.
    if config.source == "movielens-100k":
        from marec_env.data.movielens import read_movielens

        return read_movielens(config)
    if config.source.startswith("synthetic/"):
        from marec_env.data.synthetic import generate_log

        return generate_log(config)
    from marec_env.data.plain import read_plain

    return read_plain(config)
