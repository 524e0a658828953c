"""File hashes remembered by size and time of change, so that a start need not read the weights."""

from __future__ import annotations

import json
from pathlib import Path

from marec_env.errors import RunError
from marec_env.io import sha256_of, write_json

__all__ = ["HashMemo"]


class HashMemo:
    """SHA-256 of files, kept in one small JSON file of the cache.

    It serves cache keys only: whoever loads weights hashes them anew.
    """

    def __init__(self, path: Path) -> None:
        """Args:
        path: the JSON file; missing or damaged, it is made anew.
        """
        self._path = path
        try:
            loaded = json.loads(path.read_text())
            self._known: dict[str, list[object]] = loaded if isinstance(loaded, dict) else {}
        except (OSError, ValueError):
            self._known = {}

    def __call__(self, path: Path) -> str:
        """Return the file's hash, computed only if the file has changed since it was asked for."""
        state = path.stat()
        signature: list[object] = [state.st_size, state.st_mtime_ns, state.st_ino]
        entry = self._known.get(str(path.resolve()))
        if isinstance(entry, list) and len(entry) == 4 and entry[:3] == signature:
            return str(entry[3])
        found = sha256_of(path)
        self._known[str(path.resolve())] = [*signature, found]
        try:
            write_json(self._path, self._known)
        except RunError:  # a cache that cannot be written costs time, nothing else
            return found
        return found
