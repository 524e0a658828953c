"""Texts and images to vectors through the cache."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from marec_env.embeddings.assets import HASHING, requested
from marec_env.embeddings.config import EmbeddingConfig
from marec_env.embeddings.encoder import ChunkEncoder, TextEncoder, load_encoder, resolve_device
from marec_env.embeddings.images import ImageEncoder, image_digests
from marec_env.embeddings.progress import progress
from marec_env.embeddings.segment import UInt64s
from marec_env.embeddings.space import close_store, open_store
from marec_env.embeddings.store import Store, keys_of, unique_rows
from marec_env.embeddings.tokens import clean
from marec_env.errors import ConfigError

__all__ = ["Embedder", "embed_images", "embed_texts"]

# Inputs between looks at what other processes have added meanwhile.
_BLOCK = 16384


def embed_texts(
    config: EmbeddingConfig, texts: Sequence[str], device: str | torch.device = "auto"
) -> Tensor:
    """Return unit vectors, float32 ``[N, D]`` on the CPU, in the order of the texts.

    Each distinct text is embedded once; with ``config.cache``, once for all runs. Vectors are
    written as they come, so a run that is killed resumes where it was.

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
    with Embedder(config, device) as embedder:
        return embedder.encode(texts)


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
    present = [row for row, path in enumerate(paths) if path]
    with Embedder(config, device) as embedder:
        vectors = embedder.encode([path for path in paths if path])
    out = torch.zeros(len(paths), vectors.shape[1])
    out[present] = vectors
    return out


class Embedder:
    """A cache and, once something is missing from it, an encoder; for repeated requests."""

    def __init__(self, config: EmbeddingConfig, device: str | torch.device = "auto") -> None:
        """Open the cache; weights are loaded when they are needed first.

        Raises:
            AssetError: the encoder is missing or a pinned file has changed.
        """
        self.config = config
        self._device = resolve_device(device)
        self._encoder: ChunkEncoder | None = None
        cached = config.cache and requested(config) != HASHING
        self._store: Store | None = open_store(config, self._device) if cached else None

    def encode(self, inputs: Sequence[str]) -> Tensor:
        """Return unit vectors, float32 ``[N, D]``, in order; inputs are texts or image paths.

        Errors as in :func:`embed_texts` and :func:`embed_images`.
        """
        if requested(self.config) == HASHING:
            return load_encoder(self.config).encode(inputs)
        if not inputs:
            return torch.zeros(0, self._loaded().dimension)
        inputs, keys = self._prepare(inputs)
        found, known = torch.zeros(len(inputs), 0), np.zeros(len(inputs), dtype=bool)
        if self._store is not None and not self.config.refresh:
            found, known = self._store.lookup(keys)
        if known.all():
            return found
        absent = np.flatnonzero(~known)
        first, numbers = unique_rows(keys[absent])
        rows = absent[first]
        fresh = self._embed_missing([inputs[row] for row in rows.tolist()], keys[rows])
        if not known.any():
            return fresh[torch.from_numpy(numbers)]
        out = found.clone()
        out[torch.from_numpy(absent)] = fresh[torch.from_numpy(numbers)]
        return out

    def close(self) -> None:
        """Finish writing and keep the cache within its limit."""
        if self._store is not None:
            close_store(self.config, self._store)

    def __enter__(self) -> Embedder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _prepare(self, inputs: Sequence[str]) -> tuple[Sequence[str], UInt64s]:
        """Return the inputs in the form that is encoded, and their keys."""
        if self.config.modality == "image":
            return inputs, keys_of(image_digests(inputs))
        cleaned = [clean(text) for text in inputs]
        return cleaned, keys_of(text.encode() for text in cleaned)

    def _loaded(self) -> ChunkEncoder:
        if self._encoder is None:
            image = self.config.modality == "image"
            self._encoder = (ImageEncoder if image else TextEncoder)(self.config, self._device)
        return self._encoder

    def _embed_missing(self, inputs: Sequence[str], keys: UInt64s) -> Tensor:
        """Embed distinct inputs, leaving out what another process stores in the meantime."""
        encoder, store = self._loaded(), self._store
        out = torch.empty(len(inputs), encoder.dimension)
        with progress(len(inputs)) as on_batch:
            for start in range(0, len(inputs), _BLOCK):
                block = np.arange(start, min(start + _BLOCK, len(inputs)))
                if store is not None and start and not self.config.refresh:
                    found, known = store.lookup(keys[block])
                    if known.any():
                        out[torch.from_numpy(block[known])] = found[torch.from_numpy(known)]
                        on_batch(int(known.sum()), 0)
                        block = block[~known]
                done = 0
                chosen = [inputs[row] for row in block.tolist()]
                for vectors in encoder.encode_chunks(chosen, on_batch):
                    rows = block[done : done + len(vectors)]
                    out[torch.from_numpy(rows)] = vectors
                    if store is not None:
                        store.append(keys[rows], vectors)
                    done += len(vectors)
        return out
