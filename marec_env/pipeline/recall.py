"""The component that finds candidates: recall channels, their quotas, and the merger of offers.

A channel is a function ``(request, length) -> int64 [B, L]`` of items, best first; -1 where it has
no more to offer. It need not leave out items that it or other channels offer too, nor (if it lists
items from a fixed order) seen ones: the merger takes care of that. A channel is called in those
requests only in which some session wants its items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from marec_env import random
from marec_env.compiled import compiled, eager
from marec_env.errors import ConfigError
from marec_env.pipeline import index
from marec_env.pipeline.component import COMPONENTS, Component
from marec_env.pipeline.config import PipelineConfig
from marec_env.pipeline.memory import look_up
from marec_env.pipeline.plugin_checks import checked_offer
from marec_env.pipeline.request import Request
from marec_env.pipeline.selection import first_occurrences, merge, row_blocks, top_k
from marec_env.registry import Registry, callable_at

Channel = Callable[[Request, int], Tensor]
CHANNELS: Registry[Channel] = Registry("recall channel")

_FIXED_ORDER_DEPTH = 3  # times C: how deep a fixed order is read, since its head may be seen
_FRESH_SHARE = 0.25  # the newest share of the catalog, from which 'fresh' explores
_STRIDES = (7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)  # primes; those coprime to n permute it


def _nearest(request: Request, space: str, length: int) -> Tensor:
    request.need("profile_cf")
    if request.indexed:
        return _in_index(request, space, (getattr(request, f"profile_{space}"),), length)
    return request.best_unseen(getattr(request, f"{space}_scores"), length)


def _in_index(request: Request, space: str, query: Sequence[Tensor], length: int) -> Tensor:
    """Return the best unseen items by the product with a query, given in parts ``[B, d]``."""
    joined = torch.cat(tuple(query), dim=1)
    return index.nearest_unseen(request.knowledge, request.memory, space, joined, length)


@CHANNELS.register("cf")
def collaborative(request: Request, length: int) -> Tensor:
    """Nearest items to the profile in the recommender's collaborative space."""
    return _nearest(request, "cf", length)


@CHANNELS.register("text")
def text(request: Request, length: int) -> Tensor:
    """Nearest items to the profile in text space."""
    return _nearest(request, "text", length)


def _best_by(request: Request, score: Callable[[slice], Tensor], length: int) -> Tensor:
    """Return the best unseen items by scores made for a few sessions at a time, in cache.

    Args:
        request: the open request.
        score: from rows to float32 ``[rows, N]``.
        length: items wanted.
    """
    seen = request.memory.seen
    if not eager(seen):
        return top_k(score(slice(None)), length, excluded=seen)
    blocks = row_blocks(request.num_sessions, request.knowledge.num_items)
    return torch.cat([top_k(score(rows), length, excluded=seen[rows]) for rows in blocks])


@CHANNELS.register("diverse")
def diverse(request: Request, length: int) -> Tensor:
    """Items near the profile in both spaces, from topics that were shown little of late."""
    penalty = request.config.recall.topic_penalty
    if request.indexed:
        wanted = (0.5 * request.both_profiles, -penalty * request.memory.exposure)
        return _in_index(request, "both and topic", wanted, length)
    exposure, topics = request.memory.exposure, request.knowledge.items_of_topic

    def score(rows: slice) -> Tensor:
        both = request.cf_scores[rows] + request.text_scores[rows]
        return both.addmm_(exposure[rows], topics, beta=0.5, alpha=-penalty)

    return _best_by(request, score, length)


@CHANNELS.register("affinity")
def affinity(request: Request, length: int) -> Tensor:
    """Items near the profile in the collaborative space, from the user's favourite topics."""
    weight = request.config.recall.affinity_weight
    if request.indexed:
        wanted = (request.need("profile_cf"), weight * request.affinity)
        return _in_index(request, "cf and topic", wanted, length)
    topics = request.knowledge.items_of_topic

    def score(rows: slice) -> Tensor:
        return torch.addmm(request.cf_scores[rows], request.affinity[rows], topics, alpha=weight)

    return _best_by(request, score, length)


def _neighbours(request: Request, table: Tensor) -> Tensor:
    """Return the neighbours of what was liked last: everyone's first, then the second, ..."""
    recent = request.memory.recent  # [B, R]
    offered = look_up(table, recent.clamp(min=0))  # [B, R, M]
    offered = torch.where((recent >= 0).unsqueeze(-1), offered, -1)
    offered = offered.transpose(1, 2).flatten(1)
    return offered if offered.is_cpu else first_occurrences(offered)


@CHANNELS.register("item_to_item")
def item_to_item(request: Request, length: int) -> Tensor:
    """Neighbours of the latest clicked items: everyone's first neighbour, then the second, ..."""
    return _neighbours(request, request.knowledge.neighbours)


@CHANNELS.register("notes")
def notes(request: Request, length: int) -> Tensor:
    """Items whose notes are nearest to those of the latest clicked ones, in the same order."""
    return _neighbours(request, request.knowledge.written("note_neighbours"))


@CHANNELS.register("pictures")
def pictures(request: Request, length: int) -> Tensor:
    """Items whose pictures are nearest to those of the latest clicked ones, in the same order."""
    return _neighbours(request, request.knowledge.written("picture_neighbours"))


@CHANNELS.register("graph")
def graph(request: Request, length: int) -> Tensor:
    """Items that share most with the latest clicked ones: people, subjects; in the same order."""
    return _neighbours(request, request.knowledge.written("linked"))


@CHANNELS.register("user_text")
def user_text(request: Request, length: int) -> Tensor:
    """Nearest items, in text space, to the text about the user."""
    depth = _FIXED_ORDER_DEPTH * length
    return request.knowledge.written("user_items")[:, :depth].index_select(0, request.user_kind)


@CHANNELS.register("popular")
def popular(request: Request, length: int) -> Tensor:
    """The catalog by popularity, the same for everyone."""
    depth = min(_FIXED_ORDER_DEPTH * length, request.knowledge.num_items)
    return request.knowledge.by_popularity[:depth].expand(request.num_sessions, -1)


@CHANNELS.register("fresh")
def fresh(request: Request, length: int) -> Tensor:
    """A random walk through the newest share of the catalog: exploration."""
    knowledge = request.knowledge
    pool = min(knowledge.num_items, max(length, int(_FRESH_SHARE * knowledge.num_items)))
    walks = _walks(pool, knowledge.by_freshness.device)
    draws = random.integers(request.keys, request.step, "pipeline/fresh", 2, 1 << 30)
    depth = min(_FIXED_ORDER_DEPTH * length, pool)
    # A window of the walk that begins at a drawn place.
    windows = walks.unfold(1, depth, 1)
    places = windows[draws[:, 1] % walks.shape[0], draws[:, 0] % pool]
    return look_up(knowledge.by_freshness, places)


@cache
def _walks(pool: int, device: torch.device) -> Tensor:
    """Return walks through ``pool`` places in long strides, int64 ``[S, 2 pool]``.

    Each row visits every place once, then again in the same order, so that no window of up to
    ``pool`` steps holds a place twice.
    """
    strides = [stride for stride in _STRIDES if pool % stride] or [1]
    steps = torch.arange(2 * pool, device=device)
    return steps * torch.tensor(strides, device=device).unsqueeze(1) % pool


def _distinct(what: str, found: object, request: Request, length: int) -> Tensor:
    return first_occurrences(checked_offer(what, found, request))


@COMPONENTS.register("recall")
class Recall(Component):
    """Chooses a quota level for each recall channel."""

    name = "recall"
    fields: ClassVar[tuple[str, ...]] = (
        "session", "profile", "channel_hits", "exposure", "interest",
    )  # fmt: skip
    before = ("feature", "auditor", "ranking")
    objective = MappingProxyType({"recall": 1.0})

    def __init__(self, config: PipelineConfig) -> None:
        """Raises:
        ConfigError: a channel cannot be found or called.
        """
        super().__init__(config)
        self._channels = [
            callable_at("pipeline.recall.channels", CHANNELS, name, _distinct)
            for name in config.recall.channels
        ]

    @property
    def action_space(self) -> spaces.MultiDiscrete:
        """One level per channel."""
        recall = self.config.recall
        return spaces.MultiDiscrete([recall.levels] * len(recall.channels))

    def decisions(self) -> tuple[str, ...]:
        """Return the names of the quotas."""
        return tuple(f"quota of {channel}" for channel in self.config.recall.channels)

    def act(self, request: Request, action: Tensor) -> None:
        """Fill the candidates.

        Raises:
            ConfigError: the profile was made in other spaces than the items are in.
        """
        request.need("profile_cf")
        if request.profile_version != request.knowledge.version:
            raise ConfigError(
                f"recall: the profile is of space version '{request.profile_version}', the items "
                f"of '{request.knowledge.version}'; rebuild the profile after a refit"
            )
        size = self.config.candidates
        quotas = quotas_of(action, size)
        request.quotas = quotas[:, : len(self.config.recall.channels)]
        made: dict[int, Tensor] = {}

        def offer(channel: int) -> Tensor:
            if channel not in made:
                made[channel] = self._channels[channel](request, size)
            return made[channel]

        request.candidates, request.candidate_channel = merge(
            offer, quotas, request.memory.seen, request.knowledge.by_popularity, size
        )

    def default_action(self) -> Tensor:
        """Return equal levels."""
        return torch.ones(len(self.config.recall.channels), dtype=torch.int64)

    def summary(self, request: Request, action: Tensor) -> Tensor:
        """Return the quotas as shares."""
        assert request.quotas is not None
        return request.quotas.to(torch.float32) / self.config.candidates


def quotas_of(levels: Tensor, total: int) -> Tensor:
    """Share ``total`` places in proportion to levels, by largest remainders.

    Args:
        levels: int64 ``[B, channels]``, >= 0; a row of zeros shares equally.
        total: the candidates to be found, C.

    Returns:
        Int64 ``[B, channels]``; rows sum to ``total``; ties go to the earlier channel.
    """
    if not eager(levels):
        return _quotas_by_sorting(levels, total)
    quotas = torch.empty_like(levels)
    _share_places(levels.numpy(), total, quotas.numpy())
    return quotas


def _quotas_by_sorting(levels: Tensor, total: int) -> Tensor:
    channels = levels.shape[1]
    weight = torch.where(levels.sum(1, keepdim=True) > 0, levels, torch.ones_like(levels))
    scaled = weight * total
    whole = weight.sum(1, keepdim=True)
    quota = torch.div(scaled, whole, rounding_mode="floor")
    remainder = scaled - quota * whole
    order = torch.arange(channels - 1, -1, -1, device=levels.device)
    rank = (remainder * channels + order).argsort(1, descending=True).argsort(1)
    missing = total - quota.sum(1, keepdim=True)
    return quota + (rank < missing).to(torch.int64)


@compiled
def _share_places(levels: NDArray[np.int64], total: int, quotas: NDArray[np.int64]) -> None:
    """Fill ``quotas`` as :func:`quotas_of` says."""
    sessions, channels = levels.shape
    remainder = np.empty(channels, np.int64)
    for session in range(sessions):
        whole = levels[session].sum()
        missing = total
        for channel in range(channels):
            scaled = (levels[session, channel] if whole else 1) * total
            quotas[session, channel] = scaled // (whole or channels)
            remainder[channel] = scaled % (whole or channels)
            missing -= quotas[session, channel]
        for _ in range(missing):
            largest = remainder.argmax()  # the first of equals
            quotas[session, largest] += 1
            remainder[largest] = -1
