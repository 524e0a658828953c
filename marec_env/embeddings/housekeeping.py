"""Keeping the cache small: small segments are merged, the least recently used are evicted."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch

from marec_env.embeddings.segment import KEYS, ROWS, Segment, SegmentWriter, lock_if_idle

__all__ = ["enforce_limit", "merge_small_segments"]

_LOG = logging.getLogger(__name__)
_LOCK = ".lock"
_MERGE_ABOVE = 16  # small segments; a lookup opens each of them
_SMALL = 64 << 20  # bytes of rows; larger segments are not rewritten
_HEADROOM = 0.9  # share of the limit that eviction goes down to, so that it is rare


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Hold the folder's housekeeping lock; gives false, at once, where another process has it."""
    try:
        descriptor = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o644)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def merge_small_segments(folder: Path) -> None:
    """Merge finished small segments into one where there are more than a few.

    Readers see the entries at every moment: the merged segment appears before the others go.
    """
    with _alone(folder) as alone:
        if not alone:
            return
        _sweep(folder)
        idle: list[tuple[Path, int]] = []
        try:
            for keys in sorted(folder.glob(f"[!.]*{KEYS}")):
                path = keys.with_suffix("")
                descriptor = lock_if_idle(keys)
                if descriptor is None:
                    continue
                if _size(path.with_suffix(ROWS)) < _SMALL:
                    idle.append((path, descriptor))
                else:
                    os.close(descriptor)
            if len(idle) > _MERGE_ABOVE:
                _merge(folder, [path for path, _ in idle])
        except OSError as error:  # a full disk: the small segments stay as they are
            _LOG.warning("cannot merge cache segments in %s: %s", folder, error)
        finally:
            for _, descriptor in idle:
                os.close(descriptor)


def _merge(folder: Path, paths: list[Path]) -> None:
    """Write the newest sound entry of each key to one new segment and drop the old ones."""
    by_dimension: dict[int, list[Segment]] = {}
    for path in paths:
        segment = Segment(path)
        by_dimension.setdefault(segment.dimension, []).append(segment)
    for dimension, segments in by_dimension.items():
        writer = SegmentWriter(folder, dimension, hidden=True)
        seen: set[bytes] = set()
        kept = []
        for segment in reversed(segments):  # newest first, so that it is the one kept
            places = []
            for place in np.flatnonzero(segment.sound()).tolist():
                key = segment.keys[place].tobytes()
                if key not in seen:
                    seen.add(key)
                    places.append(place)
            kept.append((segment, np.asarray(places, dtype=np.int64)))
        for segment, chosen in reversed(kept):
            rows, damaged = segment.read(chosen)
            good = ~np.isin(chosen, damaged)
            writer.append(segment.keys[chosen[good]], rows[torch.from_numpy(good)])
        writer.publish()
        writer.close()
    for path in paths:
        _remove(path)


def enforce_limit(root: Path, limit_bytes: int) -> None:
    """Evict the least recently used finished segments until the cache fits.

    Args:
        root: the folder that holds one folder a space.
        limit_bytes: size of all segments together.
    """
    with _alone(root) as alone:
        if not alone:
            return
        segments = []
        for keys in root.glob(f"*/[!.]*{KEYS}"):
            with suppress(FileNotFoundError):
                size = _size(keys) + _size(keys.with_suffix(ROWS))
                segments.append((keys.stat().st_mtime_ns, size, keys.with_suffix("")))
        total = sum(size for _, size, _ in segments)
        if total <= limit_bytes:
            return
        for _, size, path in sorted(segments):
            if total <= _HEADROOM * limit_bytes:
                break
            descriptor = lock_if_idle(path.with_suffix(KEYS))
            if descriptor is not None:
                _remove(path)
                os.close(descriptor)
                total -= size
        _LOG.info("cache at %s: evicted down to %.2f GiB", root, total / 2**30)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left behind: unpublished merges and rows without keys."""
    for rows in folder.glob(f"[!.]*{ROWS}"):
        if not rows.with_suffix(KEYS).exists():
            _remove(rows.with_suffix(""))
    for keys in folder.glob(f".*{KEYS}"):
        descriptor = lock_if_idle(keys)
        if descriptor is not None:
            _remove(keys.with_suffix(""))
            os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove a segment: keys first, since rows without keys are not read."""
    for suffix in (KEYS, ROWS):
        with suppress(FileNotFoundError):
            path.with_suffix(suffix).unlink()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
