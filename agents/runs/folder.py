"""A run's folder: its files, its creation without overwriting anything, and its lock."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from marec_env.errors import RunError

__all__ = ["RunFolder", "check_place", "create_run", "open_run", "run_name"]

_CURE = "give another place with --run-dir DIR or --set output=DIR"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's own name, which is the run's."""
        return self.path.name

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def manifest(self) -> Path:
        """Versions, git commit, seeds, hashes of data and weights, hardware."""
        return self.path / "manifest.json"

    @property
    def metrics(self) -> Path:
        """One JSON line a training iteration."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def evaluation(self) -> Path:
        """The comparison with baselines."""
        return self.path / "evaluation.json"

    @property
    def report(self) -> Path:
        """One self-contained page."""
        return self.path / "report.html"

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


def run_name(name: str, algorithm: str, seed: int) -> str:
    """Return ``NAME-ALGO-seedS-TIMESTAMP`` (UTC)."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    return f"{name}-{algorithm}-seed{seed}-{stamp}"


def check_place(path: Path) -> None:
    """Refuse a place where no run folder can be made, before any work is done for it.

    Raises:
        RunError: a file or a filled folder is there, or its nearest folder cannot be written.
    """
    if path.is_dir() and any(path.iterdir()):
        raise RunError(
            f"{path} is not empty; give --run-dir another name, or continue it with --resume {path}"
        )
    for near in (path, *path.absolute().parents):
        if near.exists() or near.is_symlink():
            if not near.is_dir():
                raise RunError(f"cannot make run folder {path}: {near} is a file; {_CURE}")
            if not os.access(near, os.W_OK | os.X_OK):
                raise RunError(f"cannot make run folder {path}: {near} is not writable; {_CURE}")
            return


def create_run(path: Path, *, unique: bool) -> RunFolder:
    """Make a run's folder.

    Args:
        path: where.
        unique: take the next free name (``-2``, ``-3`` ...) if the folder exists, which happens to
            runs started within one second; otherwise an existing folder must be empty.

    Raises:
        RunError: the folder holds something already, or cannot be made.
    """
    target, number = path, 1
    while True:
        try:
            target.mkdir(parents=True, exist_ok=False)
            (target / "checkpoints").mkdir()
            return RunFolder(target)
        except FileExistsError:
            if unique:
                number += 1
                target = path.with_name(f"{path.name}-{number}")
                continue
            check_place(path)
            (path / "checkpoints").mkdir()
            return RunFolder(path)
        except OSError as error:
            raise RunError(
                f"cannot make run folder {target}: {error.strerror or error}; {_CURE}"
            ) from error


def open_run(path: Path) -> RunFolder:
    """Return an existing run.

    Raises:
        RunError: the folder is missing or is not a run's.
    """
    folder = RunFolder(path)
    if not path.is_dir():
        raise RunError(f"{path}: no such run folder")
    if not folder.config.is_file():
        raise RunError(f"{path}: not a run's folder (it has no config.yaml)")
    return folder
