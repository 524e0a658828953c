"""Errors that a user can mend.

Command-line entries turn any :class:`MarecError` into one line on standard error and exit code 2.
A message names what is wrong, where, what is allowed, and how to mend it.
"""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Iterable

__all__ = [
    "AssetError",
    "ConfigError",
    "DataError",
    "MarecError",
    "RunError",
    "unknown_name",
    "visible",
]

# Controls, the escape that begins a terminal's commands among them; what breaks or turns lines
# round; and halves of characters, which no encoding can write.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class MarecError(Exception):
    """Base of every error whose cause lies in the input rather than in marec.

    What it quotes from files and calls cannot act in a terminal: see :func:`visible`.
    """

    def __str__(self) -> str:
        """Return the message, a line for each error."""
        return "\n".join(visible(line) for line in super().__str__().split("\n"))

    def _render_traceback_(self) -> list[str]:
        """Return what IPython and notebooks show in place of a traceback: the message, and of the
        user's own code, if that failed, where.
        """
        cause = traceback.format_exception(self.__cause__) if isinstance(self, PluginError) else []
        return [f"{type(self).__name__}: {self}", *"".join(cause).splitlines()]


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


class PluginError(MarecError):
    """A function of the user's own raised an exception (``__cause__``).

    The message names the function; command-line entries print the cause's traceback below it.
    """


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Return ``what 'name' is unknown``, with the nearest known name and the whole list."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"{what} '{name}' is unknown{hint} (known: {', '.join(names) or 'none'})"


def visible(text: str, keep: str = "") -> str:
    r"""Return text from outside so that it can be shown: what would act is spelt out.

    Names and titles may hold anything. In a terminal an escape sequence recolours, retitles or
    rewrites what was printed; a line break makes one line two. ``"a\x1b[2J"`` becomes
    ``r"a\x1b[2J"``.

    Args:
        text: from a file, an argument or a plug-in.
        keep: control characters that are meant, for instance line breaks.
    """
    return _HIDDEN.sub(lambda found: found[0] if found[0] in keep else _spelt(found[0]), text)


def _spelt(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
