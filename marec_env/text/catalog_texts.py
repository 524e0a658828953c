"""The texts of a world, written and embedded before its first step.

A note of each item, and a text for every user that the recommender can tell apart by a few facts:
so calls and cost are known beforehand, and no step ever waits for a model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from marec_env.catalog.catalog import Catalog
from marec_env.data.interactions import InteractionLog
from marec_env.embeddings import EmbeddingConfig, Reduction, embed_texts, fit_reduction
from marec_env.errors import ConfigError
from marec_env.text.author import Author, Prompt, TextReport
from marec_env.text.config import TextConfig
from marec_env.text.prompts import DESCRIPTION, described, item_prompts, user_prompts

__all__ = ["CatalogTexts", "write_catalog_texts"]

_MOST_TOPICS = 32  # their triples are the users that may be told apart


_NEIGHBOURS = 16  # items kept as the nearest to an item by their notes
_DEPTH = 512  # and to a text about users: some of them will have been seen
_ROWS = 4096  # queries scored at once, to bound memory


@dataclass(frozen=True, slots=True)
class CatalogTexts:
    """What was written of items and users."""

    notes: tuple[str, ...]
    """By item; empty where no notes are wanted."""
    users: tuple[str, ...]
    """By kind of user, in the order of :func:`marec_env.text.prompts.user_prompts`."""
    note_vectors: Tensor | None
    """Float32 ``[N, dn]``, unit length: in a space of their own."""
    user_vectors: Tensor | None
    """Float32 ``[F, dt]``, unit length: in the space of the items' own texts."""
    note_neighbours: Tensor | None
    """Int64 ``[N, M]``: the items of nearest notes, nearest first, without the item itself."""
    user_items: Tensor | None
    """Int64 ``[F, D]``: the items of nearest texts to a text about users, nearest first."""
    report: TextReport

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all texts."""
        return hashlib.sha256("\0".join((*self.notes, "", *self.users)).encode()).hexdigest()


def write_catalog_texts(
    config: TextConfig,
    embeddings: EmbeddingConfig,
    log: InteractionLog,
    catalog: Catalog,
    reduction: Reduction,
    device: torch.device,
) -> CatalogTexts:
    """Write and embed what ``config`` wants of a catalog whose texts went through ``reduction``.

    Raises:
        ConfigError: too many topics to tell users apart, or too many calls of a model.
    """
    author = Author.of(config, embeddings)

    def written(prompts: list[Prompt]) -> tuple[str, ...]:
        return tuple(author.write(prompts, DESCRIPTION, described))

    def embedded(texts: tuple[str, ...], reduce: Callable[[Tensor], Reduction]) -> Tensor:
        full = embed_texts(embeddings, texts, device)
        return reduce(full).apply(full)

    notes = written(item_prompts(log, catalog, config.language)) if config.notes else ()
    users: tuple[str, ...] = ()
    if config.user_every:
        if catalog.num_topics > _MOST_TOPICS:
            raise ConfigError(
                f"environment.text.user_every needs at most {_MOST_TOPICS} topics, but "
                f"catalog.num_topics is {catalog.num_topics}; lower it, or set user_every: 0"
            )
        users = written(user_prompts(catalog, config.language))
    by_note = embedded(notes, lambda full: fit_reduction(embeddings, full)) if notes else None
    by_user = embedded(users, lambda full: reduction) if users else None
    own = None if by_note is None else torch.arange(len(by_note))
    return CatalogTexts(
        notes=notes,
        users=users,
        note_vectors=by_note,
        user_vectors=by_user,
        note_neighbours=None if by_note is None else _nearest(by_note, by_note, _NEIGHBOURS, own),
        user_items=None if by_user is None else _nearest(by_user, catalog.text, _DEPTH),
        report=author.report,
    )


def _nearest(queries: Tensor, items: Tensor, count: int, own: Tensor | None = None) -> Tensor:
    """Return the items nearest to each query, int64 ``[Q, count]`` (fewer where there are fewer),
    nearest first; ``own``, int64 ``[Q]``, is left out.
    """
    found = []
    for start in range(0, len(queries), _ROWS):
        scores = queries[start : start + _ROWS] @ items.T
        if own is not None:
            scores.scatter_(1, own[start : start + _ROWS, None], -torch.inf)
        found.append(scores.topk(min(count, len(items) - (own is not None)), dim=1).indices)
    return torch.cat(found)
