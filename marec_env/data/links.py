"""What items share beside their texts: people, companies, subjects, tags; a graph, as pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from marec_env.data.config import DataConfig
from marec_env.data.interactions import InteractionLog
from marec_env.data.tables import read_table
from marec_env.errors import DataError
from marec_env.io import sha256_of

LINKS = "links.csv"
_COLUMNS = ("item_id", "entity")
_MOST_ITEMS = 1_000  # an entity that more items share says little, and costs their number squared
_ROWS = 1_024  # items whose neighbours are found at once, to bound memory

Links = tuple[Tensor, Tensor]
"""Int64 ``[L]`` items and int64 ``[L]`` entities, a pair a link."""


def links_fingerprint(config: DataConfig) -> str:
    """Return the SHA-256 of a folder's ``links.csv``; empty where there is none."""
    path = Path(config.source).expanduser() / LINKS
    return sha256_of(path) if path.is_file() else ""


def item_links(config: DataConfig, log: InteractionLog) -> Links:
    """Return the links of a log's items in the folder's ``links.csv``; items may have none.

    Raises:
        DataError: there is no such file, or it names items that there are not.
    """
    folder = Path(config.source).expanduser()
    if not (folder / LINKS).is_file():
        raise DataError(
            f"catalog.links: data.source '{config.source}' has no {LINKS}; write one with the "
            f"columns {', '.join(_COLUMNS)}, or set environment.catalog.links=false"
        )
    place = {name: number for number, name in enumerate(log.item_ids)}
    table = read_table(folder / LINKS, _COLUMNS)
    items = table.places("item_id", place, folder / "items.csv")
    entities = table.identifiers("entity")
    _, codes = np.unique(np.array(entities), return_inverse=True)
    return items, torch.from_numpy(codes)


def linked_neighbours(links: Links, num_items: int, count: int) -> Tensor:
    """Return the items that share most with each item, int64 ``[N, count]``, most first, and -1
    where no more share anything.

    Items are compared by the cosine of their entities, each weighted by how few items have it: the
    logarithm of all items over those (inverse document frequency; K. Spärck Jones, Journal of
    Documentation 28(1), 1972). Of equal ones the earlier item comes first.
    """
    item, entity = (part.numpy() for part in links)
    given = np.ones(len(item), np.float64)
    shared = sparse.csr_array((given, (item, entity)), shape=(num_items, int(entity.max()) + 1))
    shared.data[:] = 1.0  # a link that is given twice is one
    having = np.asarray(shared.sum(0)).ravel()
    weight = np.log(num_items / having.clip(1)) * (having > 1) * (having <= _MOST_ITEMS)
    shared = shared @ sparse.diags_array(weight)
    length = np.sqrt(np.asarray(shared.multiply(shared).sum(1)).ravel())
    unit = sparse.csr_array(sparse.diags_array(1.0 / np.where(length > 0, length, 1.0)) @ shared)
    found = np.full((num_items, count), -1)
    for start in range(0, num_items, _ROWS):
        alike = sparse.csr_array(unit[start : start + _ROWS] @ unit.T)
        alike.sort_indices()
        for row in range(alike.shape[0]):
            part = slice(alike.indptr[row], alike.indptr[row + 1])
            others, likeness = alike.indices[part], alike.data[part]
            real = (others != start + row) & (likeness > 0)
            best = np.argsort(-likeness[real], kind="stable")[:count]
            found[start + row, : len(best)] = others[real][best]
    return torch.from_numpy(found)
