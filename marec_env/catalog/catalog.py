"""Items as the recommender may know them."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Catalog:
    """``N`` items; nothing hidden from the recommender is in here."""

    ids: tuple[str, ...]
    """The items' identifiers in the log, in catalog order; all else refers to positions."""
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    """What is embedded: title, then genres or description."""
    text: Tensor
    """Float32 ``[N, dt]``: text embeddings after reduction, unit length; by the
    fine-tuned encoder where there is one."""
    topics: Tensor
    """Int64 ``[N]``: the item's topic, found from its text by the encoder as published."""
    topic_names: tuple[str, ...]
    popularity: Tensor
    """Float32 ``[N]`` in [0, 1]: share of the log's users who consumed it, over the largest."""
    age: Tensor
    """Float32 ``[N]``, days since the item appeared, at the log's end; >= 0."""
    providers: Tensor
    """Int64 ``[N]``: who offers the item; 0 everywhere if unknown."""
    attributes: dict[str, Tensor] = field(default_factory=dict)
    """Further numbers of a scenario, ``[N]`` each: ``price``, ``length_minutes``, ``risk`` ..."""

    @property
    def num_items(self) -> int:
        """The number of items, N."""
        return len(self.ids)

    @property
    def num_topics(self) -> int:
        """The number of topics, T."""
        return len(self.topic_names)
