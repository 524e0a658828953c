"""The one number that sets how often items are clicked."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["calibrate_intercept"]

_BISECTIONS = 60  # halvings of [-_BOUND, _BOUND]: beyond float64 resolution
_BOUND = 60.0  # logits; sigmoid(±60) is 0 or 1 to within 1e-26


def calibrate_intercept(logits: Tensor, rate: float) -> float:
    """Return the number that, added to all logits, makes their mean probability ``rate``.

    Args:
        logits: of any shape; the mean is taken in float64.
        rate: in (0, 1).
    """
    values = logits.flatten().to(torch.float64)
    low, high = -_BOUND - float(values.max()), _BOUND - float(values.min())
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if float(torch.sigmoid(values + middle).mean()) < rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2
