"""What the recommender knows of the items before a session begins; nothing hidden is in here."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from marec_env.catalog.catalog import Catalog
from marec_env.errors import ConfigError

if TYPE_CHECKING:
    from marec_env.pipeline.index import Division
    from marec_env.pipeline.shards import ItemShards

NEIGHBOURS = 16
"""Items kept as an item's neighbours, most often consumed together with it."""


_ASKED_BY = {
    "notes": "text.notes: true",
    "note_neighbours": "text.notes: true",
    "user_texts": "text.user_every: 5",
    "user_items": "text.user_every: 5",
    "reranked": "text.rerank: 64",
    "linked": "catalog.links: true",
    "pictures": "embeddings.pictures: {encoder: FOLDER}",
    "picture_neighbours": "embeddings.pictures: {encoder: FOLDER}",
    "sentences": "pipeline.messages: {kind: text}",
}


@dataclass(frozen=True)
class Knowledge:
    """The recommender's own view of ``N`` items in two spaces, as tensors on one device.

    ``version`` names the pair of spaces: components that combine vectors check that theirs agree.
    """

    text: Tensor
    """Float32 ``[N, dt]``, unit length: text embeddings."""
    cf: Tensor
    """Float32 ``[N, dc]``, unit length (zero for items without interactions): factors that the
    recommender learned from its own share of the log."""
    neighbours: Tensor
    """Int64 ``[N, M]``: the items most often consumed together with an item, best first."""
    popularity: Tensor
    """Float32 ``[N]`` in [0, 1]."""
    age: Tensor
    """Float32 ``[N]``, days."""
    topics: Tensor
    """Int64 ``[N]``, the topic of each item."""
    num_topics: int
    """T."""
    version: str
    """Of the two spaces."""
    providers: Tensor
    """Int64 ``[N]``, the provider of each item."""
    attributes: dict[str, Tensor] = field(default_factory=dict)
    """Further numbers of the items, float32 ``[N]`` each (``price``, ``risk`` ...)."""
    notes: Tensor | None = None
    """Float32 ``[N, dn]``, unit length: embedded notes of the items, where they were written."""
    user_texts: Tensor | None = None
    """Float32 ``[F, dt]``, unit length, in the space ``text``: embedded texts about users, by
    :meth:`marec_env.pipeline.memory.SessionMemory.user_kind`."""
    note_neighbours: Tensor | None = None
    """Int64 ``[N, M]``: the items whose notes are nearest to an item's, nearest first."""
    user_items: Tensor | None = None
    """Int64 ``[F, D]``: the items whose texts are nearest to a text about users, nearest first."""
    linked: Tensor | None = None
    """Int64 ``[N, M]``: the items that share most with an item beside their texts, most first; -1
    where no more share anything."""
    pictures: Tensor | None = None
    """Float32 ``[N, dp]``, unit length: embedded pictures of the items; zeros where there is
    none."""
    picture_neighbours: Tensor | None = None
    """Int64 ``[N, M]``: the items whose pictures are nearest to an item's, nearest first; -1 where
    no more have one, and of items that have none."""
    reranked: Tensor | None = None
    """Float32 ``[N, T]``, zero mean and unit spread over the items: how well those who like a topic
    like an item, as a text model says."""
    sentences: Tensor | None = None
    """Float32 ``[S, dim]``: embedded sentences on decisions, those of the pipeline's components in
    turn (:mod:`marec_env.pipeline.sentences`)."""
    shards: ItemShards | None = field(default=None, repr=False, compare=False)
    """Who holds the vectors where this process does not (:mod:`marec_env.pipeline.shards`);
    ``text``, ``cf`` and ``topic_indicator`` are then shapes without numbers."""
    user_every: int = 1
    """Requests after which a text about the user is chosen anew."""
    num_items: int = field(init=False)
    """N."""
    num_providers: int = field(init=False)
    """The number of providers."""
    by_popularity: Tensor = field(init=False)
    """Int64 ``[N]``: items, most popular first."""
    by_freshness: Tensor = field(init=False)
    """Int64 ``[N]``: items, newest first."""
    freshness: Tensor = field(init=False)
    """Float32 ``[N]`` in [0, 1]: 1 for the newest item, 0 for the oldest, by rank."""
    topic_indicator: Tensor = field(init=False)
    """Float32 ``[N, T]``: 1 at the item's topic."""
    topic_share: Tensor = field(init=False)
    """Float32 ``[T]``, > 0, sums to 1: the topics' share in what everybody consumed."""
    centre_text: Tensor = field(init=False)
    """Float32 ``[dt]``, unit length: the items' mean by popularity, what everyone likes."""
    centre_cf: Tensor = field(init=False)
    """Float32 ``[dc]``: the same in collaborative space."""

    indexes: dict[str, Any] = field(init=False, default_factory=dict, repr=False, compare=False)
    """Approximate indexes by space, built when first asked (:mod:`marec_env.pipeline.index`)."""
    divisions: dict[str, Division] = field(
        init=False, default_factory=dict, repr=False, compare=False
    )
    """How they divide the items, by space."""

    def __post_init__(self) -> None:
        count = self.text.shape[0]
        device = self.device
        by_popularity = torch.argsort(self.popularity, descending=True, stable=True)
        by_freshness = torch.argsort(self.age, stable=True)
        freshness = torch.empty(count, device=device)
        freshness[by_freshness] = torch.linspace(1.0, 0.0, count, device=device)
        indicator = torch.nn.functional.one_hot(self.topics, self.num_topics).to(torch.float32)
        # A small count each keeps a topic that nobody consumed finite.
        weight = self.popularity @ indicator + 1.0 / self.num_topics
        for name, value in (
            ("num_items", count),
            ("num_providers", int(self.providers.max()) + 1),
            ("topic_share", weight / weight.sum()),
            ("by_popularity", by_popularity),
            ("by_freshness", by_freshness),
            ("freshness", freshness),
            ("topic_indicator", indicator if self.shards is None else indicator.to("meta")),
            ("centre_text", self._centre("text")),
            ("centre_cf", self._centre("cf")),
        ):
            object.__setattr__(self, name, value)

    def _centre(self, space: str) -> Tensor:
        if self.shards is not None:
            return self.shards.centres[space]
        return normalize(self.popularity @ getattr(self, space), dim=0)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.popularity.device

    def rows(self, table: Literal["text", "cf", "topic_indicator"], items: Tensor) -> Tensor:
        """Return the vectors of items, float32 ``[*items.shape, d]``, wherever they are held."""
        if self.shards is not None:
            return self.shards.rows(table, items)
        whole: Tensor = getattr(self, table)
        return whole.index_select(0, items.flatten()).view(*items.shape, whole.shape[1])

    def whole(self, table: Literal["text", "cf"], reader: str) -> Tensor:
        """Return the vectors of all items, float32 ``[N, d]``, for one who cannot do with rows.

        Raises:
            ConfigError: they are in shards.
        """
        if self.shards is not None:
            raise ConfigError(
                f"{reader} reads the vectors of all items at once, which lie in shards; set "
                "environment.pipeline.recall.shards=1, or do without it"
            )
        found: Tensor = getattr(self, table)
        return found

    @cached_property
    def items_of_topic(self) -> Tensor:
        """Float32 ``[T, N]``: :attr:`topic_indicator` by topic, laid out for products with rows of
        topics; made when first asked for, as a catalog that is searched by an index never does.
        """
        return self.topic_indicator.T.contiguous()

    @classmethod
    def of(cls, catalog: Catalog, cf: Tensor, neighbours: Tensor, version: str) -> Knowledge:
        """Combine a catalog with the recommender's own factors and neighbours."""
        return cls(
            text=catalog.text,
            cf=cf,
            neighbours=neighbours,
            popularity=catalog.popularity,
            age=catalog.age,
            topics=catalog.topics,
            num_topics=catalog.num_topics,
            version=version,
            providers=catalog.providers,
            attributes=catalog.attributes,
        )

    def written(
        self,
        name: Literal[
            "notes",
            "note_neighbours",
            "user_texts",
            "user_items",
            "reranked",
            "linked",
            "pictures",
            "picture_neighbours",
            "sentences",
        ],
    ) -> Tensor:
        """Return what is there only where the configuration asks for it.

        Raises:
            ConfigError: it does not.
        """
        found: Tensor | None = getattr(self, name)
        if found is None:
            what = {"linked": "links"}.get(name, "pictures" if "picture" in name else "texts")
            raise ConfigError(
                f"a component, channel or block reads {what} that are not there; set "
                f"environment.{_ASKED_BY[name]}, or leave it out"
            )
        return found

    def to(self, device: torch.device | str) -> Knowledge:
        """Return the same knowledge on another device."""
        moved: dict[str, Any] = {
            item.name: getattr(self, item.name).to(device)
            for item in fields(self)
            if item.init and isinstance(getattr(self, item.name), Tensor)
        }
        attributes = {name: value.to(device) for name, value in self.attributes.items()}
        return replace(self, attributes=attributes, **moved)
