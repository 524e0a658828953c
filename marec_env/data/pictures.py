"""Pictures of items: files in the log's folder, named in the column ``image`` of items.csv."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from marec_env.data.config import DataConfig
from marec_env.data.interactions import InteractionLog
from marec_env.errors import DataError, visible

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Those that are read; Pillow's others are not, some of which call programs."""
_MOST_PIXELS = 50_000_000  # of a picture: 150 MB once decoded


class PictureFiles(NamedTuple):
    """The files of the pictures of ``N`` items."""

    files: tuple[Path | None, ...]
    """By item; ``None`` where it names none, or one that is not there."""
    named: int
    """Items that name one."""
    stamp: str
    """Changes with any file's name, size or time, without reading them."""

    def told(self, unreadable: Sequence[Path]) -> str | None:
        """Return in a line how many items have no picture, and why; ``None`` where all have one.

        Args:
            unreadable: the files among these that hold no picture.
        """
        items, there = len(self.files), sum(path is not None for path in self.files)
        lost = items - there + len(unreadable)
        if not lost:
            return None
        first = f", first {visible(str(unreadable[0]))}" if unreadable else ""
        return (
            f"{lost:,} of {items:,} items have no picture: {items - self.named:,} name none, "
            f"{self.named - there:,} a file that is not there or closed to you, "
            f"{len(unreadable):,} one that cannot be read{first}"
        )


def picture_files(config: DataConfig, log: InteractionLog) -> PictureFiles:
    """Return where the pictures of a log's items are.

    Raises:
        DataError: no item names one, or a link of the file system leads out of the folder.
    """
    if not any(log.images):
        raise DataError(
            f"embeddings.pictures: data.source '{config.source}' names no pictures; give items.csv "
            "a column 'image' with files in its folder, or set environment.embeddings.pictures=null"
        )
    folder = Path(config.source).expanduser()
    inside, stamp = folder.resolve(), hashlib.sha256()
    files: list[Path | None] = []
    for name in log.images:
        path = folder / name
        stamp.update(f"{name}\0".encode())
        if not (name and os.path.isfile(path) and os.access(path, os.R_OK)):
            files.append(None)
            continue
        if not path.resolve().is_relative_to(inside):
            raise DataError(
                f"{folder / 'items.csv'}: 'image' {visible(name)!r} leads out of {folder}; copy "
                "the picture into the folder"
            )
        state = path.stat()
        stamp.update(f"{state.st_size} {state.st_mtime_ns}\0".encode())
        files.append(path)
    return PictureFiles(tuple(files), sum(map(bool, log.images)), stamp.hexdigest())


def read_picture(path: Path) -> Any:
    """Return a file as Pillow's RGB image, upright; ``None`` if it holds no picture of
    :data:`FORMATS`, a damaged one, or one of more than 50 million pixels.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=FORMATS) as found:
            if found.width * found.height > _MOST_PIXELS:
                return None
            return ImageOps.exif_transpose(found).convert("RGB")
    except Exception:  # of a damaged file each format raises its own kinds
        return None
