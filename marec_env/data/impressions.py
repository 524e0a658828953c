"""``impressions.csv`` of the plain format: who was shown what, where, and whether they clicked."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from marec_env.data.log import Impressions
from marec_env.data.tables import Table
from marec_env.errors import DataError

__all__ = ["IMPRESSION_COLUMNS", "impressions_of"]

IMPRESSION_COLUMNS = ("user_id", "item_id", "timestamp", "position", "click")
_PROPENSITY = "propensity"


def _place(cell: str) -> int:
    value = int(cell)
    if value < 0:
        raise ValueError(cell)
    return value


def _event(cell: str) -> float:
    value = float(cell)
    if value not in (0.0, 1.0):
        raise ValueError(cell)
    return value


def _probability(cell: str) -> float:
    value = float(cell) if cell else math.nan
    if value <= 0.0 or value > 1.0:  # false for NaN: unknown
        raise ValueError(cell)
    return value


def impressions_of(
    table: Table, user_position: Mapping[str, int], item_position: Mapping[str, int]
) -> Impressions:
    """Return the impressions of a table, sorted by user, time, position and item.

    Args:
        table: with :data:`IMPRESSION_COLUMNS`; perhaps ``propensity``; any other column is numeric
            and a behaviour, 0 where there was no click.
        user_position: of each user identifier.
        item_position: of each item identifier.

    Raises:
        DataError: bad cells, an unknown item, nothing at position 0, or a behaviour without a
            click.
    """
    items = table.identifiers("item_id")
    unknown = [row for row, item in enumerate(items) if item not in item_position]
    if unknown:
        raise table.fail(unknown, f"'item_id' is not in items.csv, first '{items[unknown[0]]}'")
    position = torch.tensor(table.parse("position", _place, "a whole number from 0 on"))
    if not bool((position == 0).any()):
        raise DataError(f"{table.path}: no impression at position 0; positions count from 0")
    click = torch.tensor(table.parse("click", _event, "0 or 1"), dtype=torch.float32)
    behaviours = {"click": click}
    for name in table.columns:
        if name not in (*IMPRESSION_COLUMNS, _PROPENSITY):
            values = torch.tensor(table.numbers(name), dtype=torch.float32)
            stray = ((values != 0) & (click == 0)).nonzero().squeeze(1).tolist()
            if stray:
                raise table.fail(stray, f"'{name}' must be 0 where 'click' is 0")
            behaviours[name] = values
    if _PROPENSITY in table:
        known = table.parse(_PROPENSITY, _probability, "in (0, 1], or empty if unknown")
    else:
        known = [math.nan] * len(table)
    user = torch.tensor([user_position[name] for name in table.identifiers("user_id")])
    item = torch.tensor([item_position[name] for name in items])
    time = torch.tensor(table.numbers("timestamp"), dtype=torch.float64).to(torch.int64)
    order = _sorted(item, position, time, user)
    return Impressions(
        user=user[order],
        item=item[order],
        time=time[order],
        position=position[order],
        propensity=torch.tensor(known, dtype=torch.float32)[order],
        behaviours={name: values[order] for name, values in behaviours.items()},
    )


def _sorted(*keys: Tensor) -> Tensor:
    """Return the order by the last key, then the one before it, and so on."""
    order = torch.arange(len(keys[0]))
    for key in keys:
        order = order[torch.argsort(key[order], stable=True)]
    return order
