"""Results as JSON and tables take them, and those that are measured piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from marec_env.errors import RunError
from marec_env.evaluation.statistics import Estimate, finite_or_none


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


def by_setting(report: Mapping[str, Any], separator: str = "; ") -> dict[str, dict[str, Any]]:
    """Return what each setting's cells found, by seed: they are named setting, separator, seed."""
    found: dict[str, dict[str, Any]] = {}
    for cell, values in report["cells"].items():
        name, _, seed = cell.rpartition(separator)
        found.setdefault(name, {})[seed] = values
    return found


@dataclass(frozen=True, slots=True)
class Cells:
    """A study that is measured cell by cell, and goes on where it was cut off."""

    settings: Mapping[str, Any]
    """What the cells depend on, as JSON has it."""
    cells: Mapping[str, Callable[[], dict[str, Any]]]
    """By name; each is measured once."""

    def measured(
        self,
        keep: Callable[[dict[str, Any]], None],
        tell: Callable[[str], None],
        earlier: Mapping[str, Any] | None = None,
        only: str = "*",
    ) -> dict[str, Any]:
        """Return the settings, and as ``cells`` what each measures; ``earlier`` ones are taken
        over.

        Args:
            keep: is given the report after each.
            tell: is told which comes next.
            earlier: a report made alike, cut short.
            only: a pattern of names, as of files (``*seed 3``): of the cells that are measured.

        Raises:
            RunError: the earlier report is of other settings.
        """
        for key, value in self.settings.items():
            if earlier and earlier.get(key) != value:
                raise RunError(
                    f"the earlier result was made with another {key}; write elsewhere (--output), "
                    "or add --replace"
                )
        report: dict[str, Any] = {**self.settings, "cells": dict((earlier or {}).get("cells", {}))}
        for name, measure in self.cells.items():
            if name not in report["cells"] and fnmatchcase(name, only):
                tell(name)
                report["cells"][name] = measure()
                keep(report)
        return report
