"""What the providers of items, or other groups of items, get of the users' attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from marec_env.inequality import gini

__all__ = ["MAX_LISTED_GROUPS", "exposure_by_group"]

MAX_LISTED_GROUPS = 100  # more are summed up by their Gini index alone


def exposure_by_group(impressions: Tensor, clicks: Tensor, groups: Tensor) -> dict[str, Any]:
    """Return each item group's shares of catalog, impressions and clicks.

    Exposure in proportion to the catalog would give every group a share of impressions equal to its
    share of items (Singh and Joachims, "Fairness of Exposure in Rankings", KDD 2018, with equal
    merit).

    Args:
        impressions: float32 ``[N]``, how often each item was shown.
        clicks: float32 ``[N]``.
        groups: int64 ``[N]``, the group of each item; groups without items do not count.

    Returns:
        ``groups`` (their number), ``gini`` of impressions an item over the groups, and, for up to
        :data:`MAX_LISTED_GROUPS`, lists in the order of the groups' numbers: ``items``,
        ``impressions`` and ``clicks``, shares that sum to 1 (to 0 where there were none).
    """
    place = torch.from_numpy(np.unique(groups.numpy(), return_inverse=True)[1])
    sums = {
        "items": torch.bincount(place).to(torch.float64),
        "impressions": torch.bincount(place, weights=impressions.to(torch.float64)),
        "clicks": torch.bincount(place, weights=clicks.to(torch.float64)),
    }
    found: dict[str, Any] = {
        "groups": int(sums["items"].numel()),
        "gini": gini((sums["impressions"] / sums["items"]).numpy()),
    }
    if found["groups"] <= MAX_LISTED_GROUPS:
        for name, values in sums.items():
            found[name] = (values / values.sum().clamp(min=1.0)).tolist()
    return found
