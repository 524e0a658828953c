"""Choosing on one half of the sessions what is paid on the other.

The largest of several noisy means is too large on the sessions that chose it. Where each half is
paid by what the other half chose, the mean is a lower bound in expectation and may be negative.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agents.studies.equilibrium.normal_form import Floats

__all__ = ["chosen_by_other_half"]


def chosen_by_other_half(values: Floats) -> NDArray[np.int64]:
    """Return for each session the option of the highest mean on the half it does not belong to.

    Args:
        values: ``[S, A]``, each session's value of each option.

    Returns:
        Int64 ``[S]``; halves are the even and the odd places.
    """
    first = np.arange(len(values)) % 2 == 0
    best_of_first, best_of_second = (int(values[h].mean(axis=0).argmax()) for h in (first, ~first))
    return np.where(first, best_of_second, best_of_first)
