"""Embeddings kept on disk: one file for each corpus and encoder.

A file holds the vectors of all distinct inputs of one request, and says in its metadata what they
are of: a hash of the inputs and all that shapes the vectors. It is written whole and then named, so
that another process sees all of it or nothing. What does not fit, or is damaged, is embedded again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

from marec_env.embeddings.assets import locate
from marec_env.embeddings.config import EmbeddingConfig
from marec_env.embeddings.encoder import resolve_precision
from marec_env.errors import RunError, visible
from marec_env.io import write_bytes

__all__ = ["CorpusCache"]

_LOG = logging.getLogger(__name__)
_LAYOUT = "2"  # raised when a change of the code changes vectors
_FOLDER = "embeddings"


class CorpusCache:
    """The file of one corpus under one encoder."""

    def __init__(
        self, config: EmbeddingConfig, keys: Sequence[bytes], device: torch.device
    ) -> None:
        """Args:
        config: encoder, pooling and what else shapes vectors; where the cache is.
        keys: what names each distinct input, in order.
        device: where the encoder runs, which ``dtype: auto`` goes by.

        Raises:
            AssetError: the encoder is missing or a pinned file has changed.
        """
        corpus = hashlib.sha256(b"".join(hashlib.sha256(key).digest() for key in keys))
        self._rows = len(keys)
        self._facts = {
            "layout": _LAYOUT,
            "corpus": corpus.hexdigest(),
            **locate(config).hashes(),
            "modality": config.modality,
            "pooling": config.pooling,
            "max_length": str(config.max_length),
            "dtype": str(resolve_precision(config, device)),
        }
        name = hashlib.sha256(json.dumps(self._facts, sort_keys=True).encode()).hexdigest()[:32]
        self.path = config.cache_root() / _FOLDER / f"{name}.safetensors"
        self._limit = int(config.cache_limit_gib * 2**30)

    def read(self) -> Tensor | None:
        """Return the vectors, float32 ``[N, D]``; ``None`` if they are not there or damaged."""
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return None
        try:
            with safe_open(str(self.path), framework="pt") as file:
                facts = file.metadata() or {}
                vectors: Tensor = file.get_tensor("vectors")
            fits = vectors.dtype == torch.float32 and vectors.shape[:-1] == (self._rows,)
            if fits and facts == {**self._facts, "sum": _sum(vectors)}:
                with suppress(OSError):  # a folder that is read only
                    os.utime(self.path)  # eviction goes by the last use
                return vectors
            problem = "it does not hold what its name says"
        except (OSError, ValueError, SafetensorError) as error:
            problem = str(error)
        line = f"{self.path} is damaged ({problem}); its texts are embedded again"
        _LOG.warning(visible(line))
        return None

    def write(self, vectors: Tensor) -> None:
        """Keep the vectors; a disk that is full or read only costs the cache, not the run."""
        from safetensors.torch import save

        try:
            write_bytes(
                self.path, save({"vectors": vectors}, {**self._facts, "sum": _sum(vectors)})
            )
            self._evict()
        except (OSError, RunError) as error:
            _LOG.warning("cannot write the cache: %s; going on", visible(str(error)))

    def _evict(self) -> None:
        """Remove the files used longest ago until the others fit into the limit."""
        found = [(path.stat(), path) for path in self.path.parent.glob("*.safetensors*")]
        total = 0
        for state, path in sorted(found, key=lambda entry: -entry[0].st_mtime_ns):
            total += state.st_size
            if total > self._limit and path != self.path and path.is_file():
                path.unlink(missing_ok=True)


def _sum(vectors: Tensor) -> str:
    return hashlib.sha256(vectors.numpy().tobytes()).hexdigest()
