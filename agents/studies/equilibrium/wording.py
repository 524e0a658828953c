"""How estimates are written in tables."""

from __future__ import annotations

from marec_env.evaluation.statistics import Estimate

__all__ = ["short", "text"]


def text(estimate: Estimate, digits: int = 3) -> str:
    """Return ``value [low, high]``."""
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def short(estimate: Estimate, digits: int = 2) -> str:
    """Return ``value ±half``, where half of the interval's width is told, for wide tables."""
    half = (estimate.high - estimate.low) / 2.0
    return f"{estimate.value:.{digits}f} ±{half:.{digits}f}"
