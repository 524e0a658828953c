"""Texts to unit vectors with the weights of a BERT-like or any other transformers model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from marec_env.embeddings.assets import HASHING, locate, requested
from marec_env.embeddings.config import EmbeddingConfig
from marec_env.embeddings.hashing import HashingTestEncoder
from marec_env.embeddings.models import load_model
from marec_env.embeddings.tokens import TextTokenizer, token_budget_batches
from marec_env.errors import ConfigError

__all__ = [
    "ChunkEncoder",
    "Encoder",
    "OnBatch",
    "TextEncoder",
    "load_encoder",
    "resolve_device",
    "resolve_precision",
]

_LOG = logging.getLogger(__name__)
# Texts tokenised ahead of the model: enough for many batches sorted by length, little memory.
CHUNK = 4096

OnBatch = Callable[[int, int], None]


class Encoder(Protocol):
    """What the cache, the stream and the catalog need of an encoder."""

    dimension: int
    """Dimensions of the vectors."""

    def encode(self, inputs: Sequence[str]) -> Tensor:
        """Return unit vectors, float32 ``[N, dimension]`` on the CPU."""


class ChunkEncoder(Encoder, Protocol):
    """An encoder that hands vectors over as they come, so that they can be stored."""

    dimension: int

    def encode_chunks(
        self, inputs: Sequence[str], on_batch: OnBatch | None = None
    ) -> Iterator[Tensor]:
        """Yield the vectors of the next inputs, in order."""


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device; ``auto`` is CUDA where there is one."""
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def resolve_precision(config: EmbeddingConfig, device: torch.device) -> torch.dtype:
    """Return bfloat16 where it is asked for, or where ``auto`` finds hardware for it."""
    if config.dtype != "auto":
        return torch.bfloat16 if config.dtype == "bf16" else torch.float32
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


class TextEncoder:
    """An encoder in memory: ``encode(texts) -> float32 [N, D]``, unit vectors on the CPU."""

    def __init__(self, config: EmbeddingConfig, device: str | torch.device = "auto") -> None:
        """Load and verify the weights.

        Raises:
            AssetError: weights are missing or do not have the expected hash.
            ConfigError: ``max_length`` is more than the model's positions.
        """
        self.config = config
        self.device = resolve_device(device)
        self.dtype = resolve_precision(config, self.device)
        files = locate(config)
        files.verify()
        self._tokenizer = TextTokenizer(files.folder, config.max_length)
        self._model = load_model(files, self.dtype, self.device)
        self.dimension = self._model.dimension
        limit = self._model.max_tokens
        if limit is not None and config.max_length > limit:
            raise ConfigError(
                f"max_length is {config.max_length}, but encoder '{files.name}' has "
                f"{limit} positions; allowed: 2 to {limit}"
            )
        _LOG.info(
            "encoder '%s' on %s in %s: %s", files.name, self.device, self.dtype, self._model.path
        )

    def encode(self, inputs: Sequence[str]) -> Tensor:
        """Return unit vectors, float32 ``[N, D]``, in the order of the texts."""
        parts = list(self.encode_chunks(inputs))
        return torch.cat(parts) if parts else torch.zeros(0, self.dimension)

    def encode_chunks(
        self, inputs: Sequence[str], on_batch: OnBatch | None = None
    ) -> Iterator[Tensor]:
        """Yield the vectors of the next texts, in order; a thread tokenises one chunk ahead.

        Args:
            inputs: any number of strings.
            on_batch: called after each batch with the texts and tokens in it.
        """
        budget = self.config.token_budget
        chunks = [inputs[start : start + CHUNK] for start in range(0, len(inputs), CHUNK)]
        with ThreadPoolExecutor(1, thread_name_prefix="tokenise") as pool:
            ahead = pool.submit(self._tokenizer, chunks[0]) if chunks else None
            for number in range(len(chunks)):
                assert ahead is not None
                tokens = ahead.result()
                if number + 1 < len(chunks):
                    ahead = pool.submit(self._tokenizer, chunks[number + 1])
                out = torch.empty(len(tokens), self.dimension)
                done: list[tuple[list[int], Tensor]] = []
                with torch.inference_mode():
                    for rows in token_budget_batches(tokens, budget, self._model.padded):
                        batch = [tokens[row] for row in rows]
                        done.append((rows, self._model.embed(batch, self.config.pooling)))
                        if on_batch is not None:
                            on_batch(len(rows), sum(map(len, batch)))
                    # fetched together: on CUDA a fetch waits for every batch queued before it
                    for rows, vectors in done:
                        out[rows] = vectors.cpu()
                yield out


def load_encoder(config: EmbeddingConfig, device: str | torch.device = "auto") -> Encoder:
    """Return the configured encoder; errors as in :class:`TextEncoder`."""
    if requested(config) == HASHING:
        return HashingTestEncoder()
    return TextEncoder(config, device)
