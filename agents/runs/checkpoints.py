"""Checkpoints that are whole or absent, and are checked before they are used.

``checkpoints/env_steps-000000050000/`` holds what the trainer saved, ``progress.json``, the metrics
so far, and ``checksums.json`` with the size and SHA-256 of every other file. The folder is filled
under a hidden name, forced to disk, and then renamed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from typing_extensions import TypedDict

from marec_env import io
from marec_env.errors import RunError
from marec_env.shipped import typed

_PREFIX = "env_steps-"
_PARTIAL = ".partial-"
_DAMAGED = "damaged-"
_CHECKSUMS = "checksums.json"
_PROGRESS = "progress.json"
_TRAINER = "trainer"
_METRICS = "metrics.jsonl"


class _Sum(TypedDict):
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run was when a checkpoint was written."""

    env_steps: int
    iterations: int
    seconds: float
    """Time spent training, over all parts of a resumed run."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk whose checksums hold."""

    folder: Path
    progress: Progress

    @property
    def trainer(self) -> Path:
        """The absolute folder to hand to ``Trainer.restore``."""
        return (self.folder / _TRAINER).absolute()

    @property
    def metrics(self) -> Path:
        """``metrics.jsonl`` as it was; checkpoints of older versions have none."""
        return self.folder / _METRICS


def _sync(path: Path) -> None:
    """Force a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(partial: Path, save: Callable[[Path], None], progress: Progress, metrics: Path) -> None:
    """Fill a checkpoint's folder and force all of it to disk."""
    trainer = (partial / _TRAINER).absolute()
    trainer.mkdir(parents=True)
    save(trainer)
    if metrics.exists():
        shutil.copyfile(metrics, partial / _METRICS)
    io.write_json(partial / _PROGRESS, asdict(progress))
    sums = {
        str(path.relative_to(partial)): _Sum(bytes=path.stat().st_size, sha256=io.sha256_of(path))
        for path in sorted(partial.rglob("*"))
        if path.is_file()
    }
    io.write_json(partial / _CHECKSUMS, sums)
    for path in (*partial.rglob("*"), partial):
        _sync(path)


def save_checkpoint(
    root: Path, save: Callable[[Path], None], progress: Progress, keep: int
) -> Path:
    """Write a checkpoint and remove the oldest ones; one of the same step is left as it is.

    Args:
        root: the run's ``checkpoints`` folder; ``metrics.jsonl`` lies beside it.
        save: writes the trainer's state into the (absolute) folder it is given.
        progress: where the run is.
        keep: how many of the newest checkpoints stay; 0 keeps all.

    Raises:
        RunError: the disk is full or cannot be written; earlier checkpoints are untouched.
    """
    target = root / f"{_PREFIX}{progress.env_steps:012d}"
    partial = root / f"{_PARTIAL}{target.name}"
    try:
        if target.exists():
            if damage(target) is None:
                return target
            # Reached again after the run resumed from an older checkpoint; kept for inspection.
            aside = root / f"{_DAMAGED}{target.name}"
            shutil.rmtree(aside, ignore_errors=True)
            target.rename(aside)
        shutil.rmtree(partial, ignore_errors=True)
        _write(partial, save, progress, root.parent / _METRICS)
        partial.rename(target)
        _sync(root)
        for old in _names(root)[:-keep] if keep else []:
            shutil.rmtree(root / old)
    except (OSError, RunError) as error:
        # What was half written would keep a full disk full.
        shutil.rmtree(partial, ignore_errors=True)
        reason = error.strerror if isinstance(error, OSError) else None
        raise RunError(
            f"cannot write checkpoint {target.name}: {reason or error}; earlier checkpoints are "
            f"whole: make room, then {typed('train')} --resume {root.parent}"
        ) from error
    return target


def damage(folder: Path) -> str | None:
    """Return what is wrong with a checkpoint's files, ``None`` if they are as they were written."""
    try:
        for name, expected in io.read_json(folder / _CHECKSUMS, dict[str, _Sum]).items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            size = path.stat().st_size
            if size != expected["bytes"]:
                return f"{name} has {size} of {expected['bytes']} bytes"
            if io.sha256_of(path) != expected["sha256"]:
                return f"{name} does not have the SHA-256 it was written with"
        io.read_json(folder / _PROGRESS, Progress)
    except (OSError, ValueError) as error:
        return f"{_CHECKSUMS} names what cannot be read: {error}"
    except RunError as error:
        return str(error).removeprefix(f"{folder}/")
    return None


def _names(root: Path) -> list[str]:
    """Return the checkpoints' folder names, oldest first."""
    return sorted(p.name for p in root.glob(f"{_PREFIX}*") if p.is_dir())


def _read(folder: Path) -> Checkpoint:
    return Checkpoint(folder, io.read_json(folder / _PROGRESS, Progress))


def whole_checkpoints(root: Path, say: Callable[[str], None]) -> list[Checkpoint]:
    """Return all undamaged checkpoints, oldest first; ``say`` is told of the damaged ones."""
    found = []
    for name in _names(root):
        if reason := damage(root / name):
            say(f"checkpoint {name} is damaged ({reason}) and left out")
        else:
            found.append(_read(root / name))
    return found


def latest_checkpoint(root: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest undamaged checkpoint, ``None`` if none was ever written; ``say`` is told of
    those that were passed over.

    Raises:
        RunError: there are checkpoints, and all are damaged.
    """
    damaged: list[str] = []
    for name in reversed(_names(root)):
        if reason := damage(root / name):
            damaged.append(f"{name} is damaged ({reason})")
            continue
        for passed_over in damaged:
            say(f"checkpoint {passed_over}; using {name} instead")
        return _read(root / name)
    if damaged:
        raise RunError(
            f"{root}: no checkpoint can be used: {'; '.join(damaged)}; restore the files, or start "
            f"anew: {typed('train')} {root.parent / 'config.yaml'}"
        )
    return None
