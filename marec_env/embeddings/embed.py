"""Texts and images to vectors, through the cache."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor

from marec_env.embeddings.assets import HASHING, requested
from marec_env.embeddings.cache import CorpusCache
from marec_env.embeddings.config import EmbeddingConfig
from marec_env.embeddings.encoder import (
    Encoder,
    HashingTestEncoder,
    TextEncoder,
    resolve_device,
)
from marec_env.embeddings.images import ImageEncoder
from marec_env.embeddings.tokens import clean
from marec_env.errors import ConfigError, DataError
from marec_env.reporting.terminal import Terminal

__all__ = ["embed_images", "embed_texts"]

_BAR_ABOVE = 2000  # texts; fewer take a few seconds


def embed_texts(
    config: EmbeddingConfig, texts: Sequence[str], device: str | torch.device = "auto"
) -> Tensor:
    """Return unit vectors, float32 ``[N, D]`` on the CPU, in the order of the texts.

    Each distinct text is embedded once; with ``config.cache``, a corpus once for all runs.

    Args:
        config: encoder, pooling, precision and cache; its modality must be text.
        texts: any strings; empty, long and repeated ones included.
        device: where the encoder runs; ``auto`` is CUDA where there is one.

    Raises:
        AssetError: the encoder is missing or damaged.
        DataError: something is not a string.
        ConfigError: the configuration is one for images.
    """
    if config.modality != "text":
        raise ConfigError("embeddings.modality is 'image', but texts are to be embedded")
    cleaned = [clean(text) for text in texts]
    return _embed(config, cleaned, [text.encode() for text in cleaned], resolve_device(device))


def embed_images(
    config: EmbeddingConfig, paths: Sequence[str | None], device: str | torch.device = "auto"
) -> Tensor:
    """Return unit vectors of image files, float32 ``[N, D]`` on the CPU, through the same cache.

    An item without an image (``None`` or an empty path) gets zeros, which a reduction passes on as
    zeros and leaves out of its fit. The cache goes by a file's content, not by its name.

    Raises:
        AssetError: the encoder is missing or damaged.
        DataError: a file is missing or is not an image.
        ConfigError: the configuration is one for texts.
    """
    if config.modality != "image":
        raise ConfigError("embeddings.modality is 'text', but images are to be embedded")
    present = [path for path in paths if path]
    vectors = _embed(config, present, list(map(_digest, present)), resolve_device(device))
    out = torch.zeros(len(paths), vectors.shape[1])
    out[[row for row, path in enumerate(paths) if path]] = vectors
    return out


def _digest(path: str) -> bytes:
    try:
        return hashlib.sha256(Path(path).read_bytes()).digest()
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or error
        raise DataError(f"image '{path}' cannot be read: {problem}") from error


def _embed(
    config: EmbeddingConfig, inputs: Sequence[str], keys: Sequence[bytes], device: torch.device
) -> Tensor:
    """Return the vectors of inputs that are the same where their keys are."""
    if requested(config) == HASHING:
        return HashingTestEncoder().encode(inputs)
    if not inputs:
        return torch.zeros(0, _encoder(config, device).dimension)
    places: dict[bytes, int] = {}
    rows = [places.setdefault(key, len(places)) for key in keys]
    cache = CorpusCache(config, list(places), device) if config.cache else None
    vectors = cache.read() if cache is not None and not config.refresh else None
    if vectors is None:
        distinct = dict(zip(reversed(rows), reversed(inputs), strict=True))  # the first of each
        encoder = _encoder(config, device)
        shown = len(distinct) > _BAR_ABOVE and sys.stderr.isatty()
        console = Terminal(stderr=True)
        with Progress(console=console, transient=True, disable=not shown) as bar:
            task = bar.add_task("embedding", total=len(distinct))
            vectors = encoder.encode(
                [distinct[row] for row in range(len(distinct))],
                lambda done: bar.advance(task, done),
            )
        if cache is not None:
            cache.write(vectors)
    return vectors if len(places) == len(rows) else vectors[rows]


def _encoder(config: EmbeddingConfig, device: torch.device) -> Encoder:
    return (ImageEncoder if config.modality == "image" else TextEncoder)(config, device)
