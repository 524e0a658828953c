"""The catalog of a log: what the recommender may know of each item."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from marec_env import random
from marec_env.catalog.catalog import Catalog
from marec_env.config import ConfigModel, Seed
from marec_env.data.interactions import InteractionLog, without_gaps
from marec_env.data.recommender_log import popularity
from marec_env.errors import DataError

_DAY = 86_400  # seconds
_YEAR_DAYS = 365.25
_EPOCH_YEAR = 1970
_WORD = re.compile(r"[^\W\d_]{3,}(?:[-'][^\W\d_]+)*")
_WORDS_IN_NAME = 2
_COMMON = 0.1  # share of a topic's items that must have a word for it to name the topic
_STOP = frozenset(
    ("the", "and", "for", "with", "from", "you", "your", "his", "her", "its", "that", "this", "are")
)
_MOST_POINTS = 1 << 16  # clustered: a larger catalog is sampled
_PRIOR = 0.5  # pseudo-count of a word, so that a word seen once does not name a topic


class CatalogConfig(ConfigModel):
    """Topics and providers of the items."""

    num_topics: int = Field(default=16, ge=1, le=1024, description="text clusters")
    restarts: int = Field(default=8, ge=1, le=100, description="seedings of the clustering")
    num_providers: int = Field(
        default=1,
        ge=1,
        description="providers, if the source names none: items are assigned to them by a hash, an "
        "assumption of the scenario, not data; 1: all items have one provider",
    )
    links: bool = Field(
        default=False,
        description="what items share beside their texts, by the folder's links.csv: the recall "
        "channel 'graph'",
    )
    seed: Seed = Field(default=0, description="of the clustering and of assumed providers")


def build_catalog(
    log: InteractionLog, embeddings: Tensor, config: CatalogConfig | None = None
) -> Catalog:
    """Return the items as the recommender may know them.

    Args:
        log: titles, genres, years, first appearances.
        embeddings: float32 ``[N, dt]``, text embeddings after reduction (rescaled to unit length).
        config: topics and providers.

    Raises:
        DataError: the embeddings do not fit the log, or there are more topics than items.
    """
    config = config or CatalogConfig()
    if embeddings.ndim != 2 or embeddings.shape[0] != log.num_items:
        raise DataError(
            f"embeddings: need one row for each of {log.num_items} items, got shape "
            f"{tuple(embeddings.shape)}"
        )
    text = torch.nn.functional.normalize(embeddings.to(torch.float32), dim=1)
    topics, _ = kmeans(text, config.num_topics, restarts=config.restarts, seed=config.seed)
    return Catalog(
        ids=log.item_ids,
        titles=log.titles,
        texts=log.texts,
        text=text,
        topics=topics,
        topic_names=topic_names(log.texts, log.genres, topics, config.num_topics),
        popularity=popularity(log),
        age=_ages(log),
        providers=_providers(log, config),
        attributes=without_gaps(log.item_attributes),
    )


def topic_names(
    texts: Sequence[str], genres: Sequence[Sequence[str]], topics: Tensor, num_topics: int
) -> tuple[str, ...]:
    """Name each topic by the words that set it apart, unique among the topics.

    A word scores its share among the topic's items times the log ratio to its share among all;
    genres count as words.
    """
    documents = (
        set(tags) | {word for word in map(str.lower, _WORD.findall(text)) if word not in _STOP}
        for text, tags in zip(texts, genres, strict=True)
    )
    lowered = {tag.lower() for tags in genres for tag in tags}
    everywhere: Counter[str] = Counter()
    inside = [Counter[str]() for _ in range(num_topics)]
    size = [0] * num_topics
    for topic, document in zip(topics.tolist(), documents, strict=True):
        words = [word for word in document if word not in lowered]
        everywhere.update(words)
        inside[topic].update(words)
        size[topic] += 1
    names: list[str] = []
    for topic in range(num_topics):
        score = {
            word: number
            / size[topic]
            * _log_ratio(number, size[topic], everywhere[word], len(texts))
            for word, number in inside[topic].items()
        }
        ranked = sorted(score, key=lambda word: (-score[word], word))
        common = [w for w in ranked if inside[topic][w] >= _COMMON * size[topic]][:_WORDS_IN_NAME]
        words = common or ranked[:1] or ["topic"]
        name = " / ".join(words)
        if name in names:  # the next best word tells them apart, else the number
            further = [word for word in ranked if word not in words][:1] or [str(topic)]
            name = " / ".join(words + further)
        names.append(name if name not in names else f"{name} ({topic})")
    return tuple(names)


def _log_ratio(inside: int, size: int, everywhere: int, total: int) -> float:
    share = (inside + _PRIOR) / (size + 2 * _PRIOR)
    return float(torch.log(torch.tensor(share / ((everywhere + _PRIOR) / (total + 2 * _PRIOR)))))


def _ages(log: InteractionLog) -> Tensor:
    """Return days since each item appeared, at the log's end.

    An item appears on the first of January of its year, or with its first interaction if that is
    earlier or the year unknown; items with neither count as new (age 0).
    """
    end = int(log.time.max())
    first = torch.full((log.num_items,), end, dtype=torch.int64)
    first.scatter_reduce_(0, log.item, log.time, "amin")
    released = ((log.year - _EPOCH_YEAR).to(torch.float64) * _YEAR_DAYS * _DAY).to(torch.int64)
    appeared = torch.where(log.year >= 0, torch.minimum(first, released), first)
    return ((end - appeared).to(torch.float64) / _DAY).to(torch.float32)


def _providers(log: InteractionLog, config: CatalogConfig) -> Tensor:
    if log.provider is not None:
        return log.provider
    keys = random.session_keys(config.seed, torch.arange(log.num_items))
    return random.integers(keys, 0, "catalog/provider", 1, config.num_providers).squeeze(-1)


def _distances(points: Tensor, centres: Tensor) -> Tensor:
    """Return squared distances ``[N, k]``."""
    square = points.square().sum(1, keepdim=True) + centres.square().sum(1)
    return (square - 2.0 * points @ centres.T).clamp_min(0.0)


def _seed_centres(points: Tensor, clusters: int, draws: Tensor) -> Tensor:
    """Choose the first centres: each point with probability as its squared distance to them."""
    chosen = [int(draws[0] * points.shape[0])]
    nearest = _distances(points, points[chosen]).squeeze(1)
    for draw in draws[1:clusters]:
        mass = torch.cumsum(nearest, 0)
        if float(mass[-1]) <= 0.0:  # fewer distinct points than clusters
            index = int(draw * points.shape[0])
        else:
            index = int(torch.searchsorted(mass, draw * mass[-1]).clamp_max(points.shape[0] - 1))
        chosen.append(index)
        nearest = torch.minimum(nearest, _distances(points, points[index : index + 1]).squeeze(1))
    return points[chosen]


def _lloyd(points: Tensor, centres: Tensor, iterations: int) -> tuple[Tensor, Tensor, float]:
    label = torch.full((points.shape[0],), -1)
    for _ in range(iterations):
        distance = _distances(points, centres)
        new = distance.argmin(1)
        if torch.equal(new, label):
            break
        label = new
        total = torch.zeros_like(centres).index_add_(0, label, points)
        count = torch.bincount(label, minlength=centres.shape[0]).to(points.dtype)
        # An empty cluster moves to the point that is worst served.
        farthest = points[distance.gather(1, label[:, None]).squeeze(1).argmax()]
        centres = torch.where(count[:, None] > 0, total / count[:, None].clamp_min(1.0), farthest)
    distance = _distances(points, centres)
    best, label = distance.min(1)
    return label, centres, float(best.sum())


def kmeans(
    points: Tensor, clusters: int, *, restarts: int = 8, iterations: int = 100, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Cluster points; clusters are numbered from the largest to the smallest.

    Seeding by k-means++ (Arthur and Vassilvitskii, SODA 2007), Lloyd iterations, several restarts,
    the smallest inertia wins. Of more than 65,536 points a sample of that size, drawn with
    replacement, finds the centres, and each point goes to the nearest. Draws are stateless:
    clusters depend on no global generator.

    Args:
        points: float ``[N, d]``.
        clusters: k, at most N.
        restarts: seedings tried.
        iterations: Lloyd iterations at most.
        seed: of all draws.

    Returns:
        Int64 ``[N]`` labels and float64 ``[k, d]`` centres.

    Raises:
        DataError: more clusters than points, or points that are not finite.
    """
    if not 1 <= clusters <= points.shape[0]:
        raise DataError(
            f"topics: {clusters} clusters need at least as many items, there are {points.shape[0]}"
        )
    if not bool(torch.isfinite(points).all()):
        raise DataError("topics: the items' embeddings hold values that are not finite")
    values = points[: _MOST_POINTS + 1].to(torch.float64)
    keys = random.session_keys(seed, torch.arange(restarts))
    if len(values) > _MOST_POINTS:
        chance = random.uniform(keys[:1], 0, "catalog/sample", _MOST_POINTS)[0].to(torch.float64)
        values = points[(chance * len(points)).to(torch.int64)].to(torch.float64)
    draws = random.uniform(keys, 0, "catalog/kmeans", clusters).to(torch.float64)
    runs = [
        _lloyd(values, _seed_centres(values, clusters, draws[run]), iterations)
        for run in range(restarts)
    ]
    label, centres, _ = min(runs, key=lambda run: run[2])
    if len(points) > _MOST_POINTS:
        blocks = torch.split(points, _MOST_POINTS)
        label = torch.cat([_distances(b.to(torch.float64), centres).argmin(1) for b in blocks])
    order = torch.argsort(torch.bincount(label, minlength=clusters), descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(clusters)
    return rank[label], centres[order]
