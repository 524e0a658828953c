"""Whether something fits into memory, asked before it is allocated."""

from __future__ import annotations

import os
from contextlib import suppress
from numbers import Integral
from pathlib import Path

from marec_env.errors import ConfigError

_CGROUP = Path("/sys/fs/cgroup")
_GB = 1e9
_BYTES_AN_ITEM = 16  # of a session: seen, and three tables of float32 scores
_BYTES_A_PLACE = 20  # of a session's slates: item, click, and its place among the relevant


def available_memory() -> int | None:
    """Return the bytes that can still be had without swapping; ``None`` if the system is silent.

    On Linux what ``MemAvailable`` and the container's limit leave, elsewhere the free pages.
    """
    found = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        [line] = [line for line in lines if line.startswith("MemAvailable:")]
        found.append(int(line.split()[1]) * 1024)
    with suppress(OSError, ValueError):  # "max" where there is no limit
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        found.append(max(0, limit - used))
    if not found:
        with suppress(OSError, ValueError, AttributeError):
            found.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=None)


def require_memory(what: str, needed: float, cure: str) -> None:
    """Refuse what cannot fit.

    Args:
        what: named in the error, with its sizes: ``"ease on 50,000 items"``.
        needed: bytes at the peak.
        cure: what to change: ``"lower data.synthetic.num_items"``.

    Raises:
        ConfigError: more bytes are needed than there are.
    """
    there = available_memory()
    if there is not None and needed > there:
        raise ConfigError(
            f"{what}: needs about {needed / _GB:,.1f} GB of memory, {there / _GB:,.1f} GB are free;"
            f" {cure}"
        )


def require_sessions(sessions: object, items: int, places: int) -> None:
    """Refuse a number of sessions that is no whole number, or that memory cannot hold.

    Args:
        sessions: as given.
        items: of the catalog.
        places: of all slates of an episode.

    Raises:
        ConfigError: it is no such number.
    """
    if not isinstance(sessions, Integral) or isinstance(sessions, bool):
        raise ConfigError(f"num_sessions is {sessions!r}; give a whole number such as 64")
    if sessions < 1:
        raise ConfigError(f"num_sessions is {sessions}; give at least 1")
    needed = float(sessions) * (_BYTES_AN_ITEM * items + _BYTES_A_PLACE * places)
    what = f"{int(sessions):,} sessions over {items:,} items"
    require_memory(what, needed, "lower the number of sessions")
