"""Results as JSON and tables take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from marec_env.evaluation.statistics import Estimate, finite_or_none

__all__ = ["plain", "spread"]


def plain(value: Any) -> Any:
    """Return mappings, lists, numbers and text: arrays are lists, NaN, which JSON lacks, is null.

    Of a dataclass the fields that its ``repr`` shows; of an estimate its value and interval.
    """
    if isinstance(value, Estimate):
        return value.as_json()
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value) if f.repr}
    return finite_or_none(value) if isinstance(value, float) else value


def spread(estimate: Estimate, digits: int = 3, sign: str = "") -> str:
    """Return ``value ± half`` of the interval's width, the value alone where there is none."""
    half = (estimate.high - estimate.low) / 2.0
    return f"{estimate.value:{sign}.{digits}f}" + (f" ± {half:.{digits}f}" if half == half else "")
