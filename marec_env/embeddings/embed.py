"""Texts to vectors through the cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from marec_env.embeddings.config import EmbeddingConfig
from marec_env.embeddings.encoder import load_encoder

__all__ = ["embed_texts"]


def embed_texts(
    config: EmbeddingConfig, texts: Sequence[str], device: str | torch.device = "auto"
) -> Tensor:
    """Return unit vectors, float32 ``[N, D]`` on the CPU, in the order of the texts.

    Args:
        config: encoder, pooling, precision and cache.
        texts: any strings; empty, long and repeated ones included.
        device: where the encoder runs; ``auto`` is CUDA where there is one.

    Raises:
        AssetError: the encoder is missing or damaged.
    """
    return load_encoder(config, device).encode(texts)
