"""Whether something fits into memory, asked before it is allocated."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from marec_env.errors import ConfigError

__all__ = ["available_memory", "require_memory"]

_CGROUP = Path("/sys/fs/cgroup")
_GB = 1e9


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
