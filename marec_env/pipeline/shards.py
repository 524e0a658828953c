"""Item vectors in parts, each in a process of its own, for catalogs that one machine cannot hold.

A part (:class:`Shard`) holds the vectors of a run of neighbouring items, answers with its own best
items, and hands out rows. Who asks (:class:`ItemShards`) merges the answers by score: the best of
all are among the best of each part, so that nothing is lost by the division itself. Where parts
live is their host's affair (:data:`HOSTS`): the environment knows of no Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marec_env.errors import ConfigError
from marec_env.pipeline.index import SPACES, build_index
from marec_env.pipeline.knowledge import Knowledge
from marec_env.pipeline.selection import top_k
from marec_env.registry import Registry

Floats = NDArray[np.float32]
_TABLES = ("cf", "text", "topic_indicator")


class Shard:
    """The vectors of a run of ``n`` neighbouring items, numbered 0 ... n - 1 in here."""

    def __init__(self, tables: Mapping[str, Floats], approximate: bool) -> None:
        """Args:
        tables: float32 ``[n, d]`` by name, those of :data:`marec_env.pipeline.index.SPACES`.
        approximate: whether to search an index of the part, not all of its items.
        """
        self._tables = {name: torch.tensor(table) for name, table in tables.items()}
        self._approximate = approximate
        self._indexes: dict[str, Any] = {}

    def search(self, space: str, query: Floats, length: int) -> tuple[Floats, NDArray[np.int64]]:
        """Return scores and items of largest product with each query, ``[B, length]`` or fewer
        columns; an item is -1 where the index found no more.
        """
        tables = [self._tables[name] for name in SPACES[space]]
        length = min(length, len(tables[0]))
        if self._approximate:
            if space not in self._indexes:
                self._indexes[space] = build_index(tables)
            scores, items = self._indexes[space].search(query, length)
            return scores, items
        sizes = [table.shape[1] for table in tables]
        parts = torch.tensor(query).split_with_sizes(sizes, 1)
        products = torch.zeros(len(query), len(tables[0]))
        for part, table in zip(parts, tables, strict=True):
            products.addmm_(part, table.T)
        found = top_k(products, length)
        return products.gather(1, found).numpy(), found.numpy()

    def rows(self, table: str, items: NDArray[np.int64]) -> Floats:
        """Return rows ``[m, d]`` of a table."""
        return self._tables[table].numpy()[items]


class Host(Protocol):
    """Keeps the parts and passes on what they are asked."""

    def ask(self, method: str, asked: Sequence[tuple[Any, ...] | None]) -> list[Any]:
        """Return what each :class:`Shard` answers to its own arguments; ``None`` where it is not
        asked. All are asked before the first answer is waited for.

        Raises:
            RunError: a part is gone.
        """
        ...


class Hosting(Protocol):
    """A kind of host."""

    def __call__(self, parts: Sequence[Mapping[str, Floats]], approximate: bool) -> Host:
        """Begin to keep these parts."""
        ...

    def session(self) -> str:
        """Return what tells parts of this host from those of one that has ended since."""
        ...


HOSTS: Registry[Hosting] = Registry("host of item shards")
HOSTS.register_at("ray", "agents.learners.item_shards:RAY")


class ItemShards:
    """All parts as one catalog of ``N`` items."""

    def __init__(self, host: Host, bounds: Sequence[int], centres: Mapping[str, Tensor]) -> None:
        """Args:
        host: of the parts.
        bounds: the first item of each part, and N: one number more than there are parts.
        centres: of the catalog, by table (:attr:`Knowledge.centre_text`).
        """
        self.host, self.bounds, self.centres = host, tuple(bounds), dict(centres)

    def search(self, space: str, query: Tensor, length: int) -> Tensor:
        """Return the items of largest product with each query, int64 ``[B, length]``, best first;
        of equals the first item; -1 where fewer were found.
        """
        asked = (space, query.contiguous().numpy(), length)
        answers = self.host.ask("search", [asked] * (len(self.bounds) - 1))
        scores = torch.cat([torch.tensor(found) for found, _ in answers], dim=1)
        items = torch.cat(
            [
                torch.where((local := torch.tensor(found)) < 0, -1, local + first)
                for (_, found), first in zip(answers, self.bounds, strict=False)
            ],
            dim=1,
        )
        scores = torch.where(items < 0, -torch.inf, scores)
        # By item, then stably by score.
        order = torch.where(items < 0, self.bounds[-1], items).argsort(dim=1)
        scores, items = scores.gather(1, order), items.gather(1, order)
        order = scores.argsort(dim=1, descending=True, stable=True)[:, :length]
        return items.gather(1, order)

    def rows(self, table: str, items: Tensor) -> Tensor:
        """Return rows of a table, float32 ``[*items.shape, d]``."""
        flat = items.flatten()
        part = torch.bucketize(flat, torch.tensor(self.bounds[1:]), right=True)
        places = [(part == number).nonzero().squeeze(1) for number in range(len(self.bounds) - 1)]
        asked = [
            (table, (flat[place] - first).numpy()) if len(place) else None
            for place, first in zip(places, self.bounds, strict=False)
        ]
        answers = self.host.ask("rows", asked)
        found = torch.empty(len(flat), self.centres[table].shape[0])
        for place, rows in zip(places, answers, strict=True):
            if rows is not None:
                found[place] = torch.tensor(rows)
        return found.view(*items.shape, -1)


def divided(
    knowledge: Knowledge,
    count: int,
    approximate: bool,
    hosting: Callable[[Sequence[Mapping[str, Floats]], bool], Host],
) -> Knowledge:
    """Return the same knowledge with its vectors in ``count`` parts, and none of them here.

    Args:
        knowledge: on the CPU.
        count: parts.
        approximate: see :class:`Shard`.
        hosting: see :data:`HOSTS`.

    Raises:
        ConfigError: there are more parts than items.
    """
    size = knowledge.num_items
    if count > size:
        raise ConfigError(
            f"pipeline.recall.shards is {count}, but the catalog has {size} items; lower it"
        )
    bounds = [size * number // count for number in range(count + 1)]
    tables = {name: getattr(knowledge, name).numpy() for name in _TABLES}
    parts = [{name: table[a:b] for name, table in tables.items()} for a, b in pairwise(bounds)]
    centres = {
        "text": knowledge.centre_text,
        "cf": knowledge.centre_cf,
        "topic_indicator": knowledge.topic_share,
    }
    shards = ItemShards(hosting(parts, approximate), bounds, centres)
    # Shapes without numbers: whoever reads them after all fails at once.
    text, cf = knowledge.text.to("meta"), knowledge.cf.to("meta")
    return replace(knowledge, text=text, cf=cf, shards=shards)
