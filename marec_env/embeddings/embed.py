"""Texts to vectors through the cache."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from marec_env.embeddings.assets import HASHING, requested
from marec_env.embeddings.config import EmbeddingConfig
from marec_env.embeddings.encoder import TextEncoder, load_encoder, resolve_device
from marec_env.embeddings.progress import progress
from marec_env.embeddings.space import close_store, open_store
from marec_env.embeddings.store import Store, keys_of, unique_rows
from marec_env.embeddings.tokens import clean

__all__ = ["embed_texts"]

# Texts between looks at what other processes have added meanwhile.
_BLOCK = 16384


def embed_texts(
    config: EmbeddingConfig, texts: Sequence[str], device: str | torch.device = "auto"
) -> Tensor:
    """Return unit vectors, float32 ``[N, D]`` on the CPU, in the order of the texts.

    Each distinct text is embedded once; with ``config.cache``, once for all runs. Vectors are
    written as they come, so a run that is killed resumes where it was.

    Args:
        config: encoder, pooling, precision and cache.
        texts: any strings; empty, long and repeated ones included.
        device: where the encoder runs; ``auto`` is CUDA where there is one.

    Raises:
        AssetError: the encoder is missing or damaged.
        DataError: something is not a string.
    """
    chosen = resolve_device(device)
    if requested(config) == HASHING or not texts:
        return load_encoder(config, chosen).encode(texts)
    cleaned = [clean(text) for text in texts]
    keys = keys_of(text.encode() for text in cleaned)
    store = open_store(config, chosen) if config.cache else None
    try:
        found, known = torch.zeros(len(texts), 0), np.zeros(len(texts), dtype=bool)
        if store is not None and not config.refresh:
            found, known = store.lookup(keys)
        if known.all():
            return found
        absent = np.flatnonzero(~known)
        first, numbers = unique_rows(keys[absent])
        encoder = TextEncoder(config, chosen)
        fresh = _embed_missing(encoder, store, [cleaned[absent[row]] for row in first])
        if not known.any():
            return fresh[torch.from_numpy(numbers)]
        out = found.clone()
        out[torch.from_numpy(absent)] = fresh[torch.from_numpy(numbers)]
        return out
    finally:
        if store is not None:
            close_store(config, store)


def _embed_missing(encoder: TextEncoder, store: Store | None, texts: Sequence[str]) -> Tensor:
    """Embed distinct texts, leaving out what another process stores in the meantime."""
    out = torch.empty(len(texts), encoder.dimension)
    with progress(len(texts)) as on_batch:
        for start in range(0, len(texts), _BLOCK):
            block = texts[start : start + _BLOCK]
            keys = keys_of(text.encode() for text in block)
            left = np.arange(len(block))
            if store is not None and start and not encoder.config.refresh:
                found, known = store.lookup(keys)
                out[start : start + len(block)][torch.from_numpy(known)] = found[known]
                left = np.flatnonzero(~known)
                on_batch(int(known.sum()), 0)
            done = 0
            for vectors in encoder.encode_chunks([block[row] for row in left.tolist()], on_batch):
                rows = left[done : done + len(vectors)]
                out[torch.from_numpy(rows + start)] = vectors
                if store is not None:
                    store.append(keys[rows], vectors)
                done += len(vectors)
    return out
