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
from torch.nn.functional import normalize

from marec_env.catalog.catalog import Catalog
from marec_env.data.interactions import InteractionLog
from marec_env.embeddings import EmbeddingConfig, Reduction, embed_texts, fit_reduction
from marec_env.embeddings.vectors import nearest
from marec_env.errors import ConfigError
from marec_env.text.author import Author, Prompt, TextReport
from marec_env.text.config import TextConfig
from marec_env.text.prompts import described, item_prompts, like_prompts, user_prompts

_MOST_TOPICS = 32  # their triples are the users that may be told apart


_NEIGHBOURS = 16  # items kept as the nearest to an item by their notes
_DEPTH = 512  # and to a text about users: some of them will have been seen
_RIDGE = 1.0  # of the regression that learns scores: half of what a handful of near items weigh
_SMALL = 1e-9


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
    reranked: Tensor | None
    """Float32 ``[N, T]``: see :attr:`marec_env.pipeline.knowledge.Knowledge.reranked`."""
    report: TextReport

    @property
    def any(self) -> bool:
        """Whether anything was written or scored."""
        return bool(self.notes or self.users or self.reranked is not None)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all texts and scores."""
        found = hashlib.sha256("\0".join((*self.notes, "", *self.users)).encode())
        if self.reranked is not None:
            found.update(self.reranked.cpu().numpy().tobytes())
        return found.hexdigest()


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
        return tuple(author.write(prompts, described))

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
    reranked = None
    if config.rerank:
        facts = notes or [prompt.template for prompt in item_prompts(log, catalog, config.language)]
        asked = pairs_to_ask(catalog, config.rerank)
        scores = author.score(like_prompts(catalog, facts, asked, config.language))
        odds = (scores[:, 0] - scores[:, 1]).view(asked.shape)
        reranked = distilled(catalog.text, asked, odds)[0]
    by_note = embedded(notes, lambda full: fit_reduction(embeddings, full)) if notes else None
    by_user = embedded(users, lambda full: reduction) if users else None
    own = None if by_note is None else torch.arange(len(by_note))
    return CatalogTexts(
        notes=notes,
        users=users,
        note_vectors=by_note,
        user_vectors=by_user,
        note_neighbours=None if by_note is None else nearest(by_note, by_note, _NEIGHBOURS, own),
        user_items=None if by_user is None else nearest(by_user, catalog.text, _DEPTH),
        reranked=reranked,
        report=author.report,
    )


def pairs_to_ask(catalog: Catalog, count: int) -> Tensor:
    """Return the items that a topic's users are asked about, int64 ``[T, count]`` (fewer where
    there are fewer): half are the nearest to the topic's mean text, which recall would bring, the
    others spread evenly over the rest, so that what is learned from them holds for all.
    """
    centre = torch.zeros(catalog.num_topics, catalog.text.shape[1])
    centre = normalize(centre.index_add_(0, catalog.topics, catalog.text), dim=1)
    order = (centre @ catalog.text.T).argsort(dim=1, descending=True, stable=True)
    near = min((count + 1) // 2, order.shape[1])
    rest = order.shape[1] - near
    further = min(count - near, rest)
    places = torch.arange(further) * rest // max(1, further)
    return torch.cat([order[:, :near], order[:, near:][:, places]], dim=1)


def distilled(vectors: Tensor, asked: Tensor, odds: Tensor) -> tuple[Tensor, float]:
    """Learn scores of all items from those of some, a ridge regression on the items' vectors for
    each topic; those that were asked keep theirs.

    Args:
        vectors: float32 ``[N, d]``, unit length.
        asked: int64 ``[T, n]``.
        odds: float32 ``[T, n]``, scores of these.

    Returns:
        Float32 ``[N, T]``, zero mean and unit spread over the items (0 where all are alike); and
        the share of the scores' variance that the regressions explain in items left out, one at a
        time.
    """
    known, scores = vectors[asked].double(), odds.double()  # [T, n, d], [T, n]
    centre, middle = known.mean(1, keepdim=True), scores.mean(1, keepdim=True)
    known = known - centre
    ridge = _RIDGE * torch.eye(known.shape[2], dtype=torch.float64)
    solved = torch.linalg.solve(known.transpose(1, 2) @ known + ridge, known.transpose(1, 2))
    weights = solved @ (scores - middle).unsqueeze(2)  # [T, d, 1]
    hat = (known @ solved).diagonal(dim1=1, dim2=2) + 1 / known.shape[1]
    missed = (scores - middle - (known @ weights).squeeze(2)) / (1 - hat).clamp(min=_SMALL)
    found = vectors.double() @ weights.squeeze(2).T  # [N, T]
    found += (middle - (centre @ weights).squeeze(2)).T
    found.scatter_(0, asked.T, scores.T)
    spread = found.std(0, correction=0)
    found = torch.where(spread > _SMALL, (found - found.mean(0)) / spread.clamp(min=_SMALL), 0.0)
    total = (scores - middle).square().sum()
    return found.float(), float(1 - missed.square().sum() / total.clamp(min=_SMALL))
