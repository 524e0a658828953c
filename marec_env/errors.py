"""Errors that a user can mend.

Command-line entries turn any :class:`MarecError` into one line on standard error and exit code 2.
A message names what is wrong, where, what is allowed, and how to mend it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["AssetError", "ConfigError", "DataError", "MarecError", "RunError", "unknown_name"]


class MarecError(Exception):
    """Base of every error whose cause lies in the input rather than in marec."""


class ConfigError(MarecError, ValueError):
    """A configuration value is missing, unknown, of the wrong type or out of range.

    Also a ``ValueError``, so that pydantic reports one raised by a validator with its place.
    """


class DataError(MarecError):
    """A log, catalog or feature file is missing, damaged or inconsistent."""


class AssetError(MarecError):
    """Weights or a packaged data set are missing or do not have the expected hash."""


class RunError(MarecError):
    """A run folder or a checkpoint cannot be written, read or combined."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Return ``what 'name' is unknown``, with the nearest known name and the whole list."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"{what} '{name}' is unknown{hint} (known: {', '.join(names) or 'none'})"
