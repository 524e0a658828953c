"""A run's folder: its files, its creation in one step without overwriting anything, its lock."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from marec_env.errors import RunError

_CURE = "give another place with --run-dir DIR or --set output=DIR"
_LONGEST_NAME, _LONGEST_PATH = 255, 3800
"""Bytes of a file's name on Linux, and of a path (4,096) less what lies below a run's folder."""


class _Entry:
    """A file or folder of a run, by its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: RunFolder, owner: object = None) -> Path:
        return folder.path / self._name


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run."""

    path: Path

    config = _Entry("config.yaml")
    """The resolved configuration."""
    manifest = _Entry("manifest.json")
    """Versions, git commit, seeds, hashes of data and weights, hardware."""
    metrics = _Entry("metrics.jsonl")
    """One JSON line a training iteration."""
    checkpoints = _Entry("checkpoints")
    best = _Entry("best")
    evaluation = _Entry("evaluation.json")
    """The comparison with baselines."""
    report = _Entry("report.html")
    """One self-contained page."""

    @property
    def name(self) -> str:
        """The folder's own name, which is the run's."""
        return self.path.name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises:
            RunError: another process trains in this folder, or the folder cannot be written.
        """
        lock = self.path / ".lock"
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunError(f"cannot write {lock}: {error.strerror or error}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise RunError(
                f"{self.path} is in use by another training process; wait for it or stop it"
            ) from error
        try:
            yield
        finally:
            os.close(handle)


def timestamp() -> str:
    """Return the moment in UTC as names of folders hold it."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime())


def run_name(name: str, algorithm: str, seed: int, stamp: str | None = None) -> str:
    """Return ``NAME-ALGO-seedS-TIMESTAMP``, of this moment by default."""
    return f"{name}-{algorithm}-seed{seed}-{stamp or timestamp()}"


def check_path(path: Path) -> None:
    """Refuse a path that a file system, or a page that names it, cannot hold.

    Raises:
        RunError: it is too long, or holds NUL or bytes that are no UTF-8.
    """
    try:
        longest = max((len(part.encode()) for part in path.parts), default=0)
        length = len(str(path.absolute()).encode())
    except UnicodeEncodeError as error:
        raise RunError(f"path {str(path)!a} holds bytes that are no UTF-8; rename it") from error
    if "\0" in str(path):
        raise RunError(f"path {str(path)!a} holds the character NUL; give another")
    if longest > _LONGEST_NAME or length > _LONGEST_PATH:
        raise RunError(
            f"path '{str(path)[:60]}…' is too long: names may have {_LONGEST_NAME} bytes and the "
            f"whole {_LONGEST_PATH:,} (got {longest} and {length:,}); give a shorter one"
        )


def check_place(path: Path) -> None:
    """Refuse a place where no run folder can be made, before any work is done for it.

    Raises:
        RunError: a file or a filled folder is there, its nearest folder cannot be written, or its
            name cannot be used.
    """
    check_path(path)
    if path.is_dir() and any(path.iterdir()):
        cure = f", or continue it with --resume {path}" if RunFolder(path).config.is_file() else ""
        raise RunError(f"{path} is not empty; give --run-dir another name{cure}")
    for near in (path, *path.absolute().parents):
        if near.exists() or near.is_symlink():
            if not near.is_dir():
                raise RunError(f"cannot make run folder {path}: {near} is a file; {_CURE}")
            if not os.access(near, os.W_OK | os.X_OK):
                raise RunError(f"cannot make run folder {path}: {near} is not writable; {_CURE}")
            return


def create_run(path: Path, fill: Callable[[RunFolder], None], *, unique: bool) -> RunFolder:
    """Make a run's folder, which is there with all its files or not at all.

    Args:
        path: where.
        fill: writes the files of the new run; it is given a hidden folder beside ``path``, which
            then takes the name ``path``.
        unique: take the next free name (``-2``, ``-3`` ...) if the folder exists, which happens to
            runs started within one second; otherwise an existing folder must be empty.

    Raises:
        RunError: the folder holds something already, or cannot be made.
    """
    hidden, target, number = path.parent / f".new-run-{secrets.token_hex(6)}", path, 1
    try:
        (hidden / "checkpoints").mkdir(parents=True)
        fill(RunFolder(hidden))
        while True:
            try:
                hidden.rename(target.resolve())  # an empty folder there is replaced
                return RunFolder(target)
            except OSError as error:
                if error.errno == errno.EBUSY:  # a mounted volume: its own name must stay
                    for name in ("checkpoints", "manifest.json", "config.yaml"):
                        shutil.move(hidden / name, target / name)
                    return RunFolder(target)
                if not unique or error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
            number += 1
            target = path.with_name(f"{path.name}-{number}")
    except OSError as error:
        if not unique:
            check_place(path)
        reason = error.strerror or error
        raise RunError(f"cannot make run folder {target}: {reason}; {_CURE}") from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def open_run(path: Path) -> RunFolder:
    """Return an existing run.

    Raises:
        RunError: the folder is missing or is not a run's.
    """
    check_path(path)
    folder = RunFolder(path)
    if not path.is_dir():
        raise RunError(f"{path}: no such run folder")
    if not folder.config.is_file():
        raise RunError(f"{path}: not a run's folder (it has no config.yaml)")
    return folder
