"""How unequally something is shared out."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["gini"]


def gini(amounts: ArrayLike) -> float:
    """Return the Gini index of ``[N]`` non-negative amounts.

    0 if all are equal (also if all are zero), ``1 - 1/N`` if one has everything.
    """
    ordered = np.sort(np.asarray(amounts, dtype=np.float64))
    count, total = ordered.size, float(ordered.sum())
    if total <= 0:
        return 0.0
    ranks = np.arange(1, count + 1)
    return float(((2 * ranks - count - 1) * ordered).sum() / (count * total))
