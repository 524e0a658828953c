"""Texts to vectors, kept on disk: one file for each corpus and encoder; pictures likewise.

A file holds the vectors of all distinct texts of one request, and says in its metadata what they
are of: a hash of the texts and all that shapes the vectors. It is written whole and then named, so
that another process sees all of it or nothing. What does not fit, or is damaged, is embedded again.
A large corpus is kept in parts, so that an embedding that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol

import torch
from rich.progress import Progress
from torch import Tensor

from marec_env.embeddings.assets import HASHING, locate, requested
from marec_env.embeddings.config import EmbeddingConfig
from marec_env.embeddings.encoder import (
    HashingTestEncoder,
    OnBatch,
    TextEncoder,
    resolve_device,
    resolve_precision,
)
from marec_env.embeddings.scripts import unread_script
from marec_env.embeddings.tokens import clean
from marec_env.embeddings.vectors import Vectors, room_for
from marec_env.errors import RunError, visible
from marec_env.io import write_bytes
from marec_env.reporting.terminal import Terminal

_LOG = logging.getLogger(__name__)
_BAR_ABOVE = 2000  # texts; fewer take a few seconds
_PART = 1 << 17  # texts in a file
_LAYOUT = "2"  # raised when a change of the code changes vectors
_FOLDER = "embeddings"


def embed_texts(
    config: EmbeddingConfig, texts: Sequence[str], device: str | torch.device | None = "auto"
) -> Tensor:
    """Return unit vectors, float32 ``[N, D]`` on the CPU, in the order of the texts, as one table;
    arguments and errors are those of :func:`embed_corpus`.
    """
    return embed_corpus(config, texts, device).whole()


def embed_corpus(
    config: EmbeddingConfig, texts: Sequence[str], device: str | torch.device | None = "auto"
) -> Vectors:
    """Return unit vectors, float32 ``[N, D]`` on the CPU, in the order of the texts.

    Each distinct text is embedded once; with ``config.cache``, a corpus once for all runs, and its
    vectors are read from the cache's files where they lie.

    Args:
        config: encoder, pooling, precision and cache.
        texts: any strings; empty, long and repeated ones included.
        device: where the encoder runs; ``auto`` is CUDA where there is one.

    Raises:
        AssetError: the encoder is missing or damaged.
        DataError: something is not a string.
    """
    cleaned = [clean(text) for text in texts]
    if requested(config) == HASHING:
        return Vectors([HashingTestEncoder().encode(cleaned)])
    place = resolve_device(device)
    files = locate(config)
    if foreign := unread_script(files, cleaned):
        _LOG.warning(visible(foreign))
    cleaned = [config.prefix + text for text in cleaned]
    if not cleaned:
        return Vectors([torch.zeros(0, TextEncoder(config, place).dimension)])
    facts = CorpusCache.facts(config, place) if config.cache else {}
    return embed_kept(config, cleaned, facts, lambda: TextEncoder(config, place), _PART)


class _Encoder(Protocol):
    def encode(self, inputs: Sequence[str], on_batch: OnBatch | None = None) -> Tensor: ...


def embed_kept(
    config: EmbeddingConfig,
    inputs: Sequence[str],
    facts: Mapping[str, str],
    load: Callable[[], _Encoder],
    size: int,
) -> Vectors:
    """Return vectors of inputs, float32 ``[N, D]`` on the CPU, from the cache where they lie there.

    Args:
        config: of the cache.
        inputs: at least one; of equal ones one is embedded.
        facts: all but the inputs that shapes vectors.
        load: gives the encoder, once it is needed.
        size: inputs in a file of the cache, which is what an embedding that is killed may lose.
    """
    rows: dict[str, int] = {}
    order = [rows.setdefault(text, len(rows)) for text in inputs]
    distinct = list(rows)
    parts = [distinct[start : start + size] for start in range(0, len(distinct), size)]
    shown = len(distinct) > _BAR_ABOVE and sys.stderr.isatty()
    encoder = None
    found: list[Tensor] = []
    written: list[tuple[Future[None], CorpusCache]] = []

    def settle() -> None:
        """Wait for the last part's file; of several parts none is kept in memory beside it."""
        while written:
            future, cache = written.pop()
            future.result()
            if len(parts) > 1 and (lying := cache.read()) is not None:
                found[-1] = lying

    with (
        Progress(console=Terminal(stderr=True), transient=True, disable=not shown) as bar,
        ThreadPoolExecutor(1, thread_name_prefix="cache") as writer,
    ):
        task = bar.add_task("embedding", total=len(distinct))
        for number, part in enumerate(parts):
            cache = CorpusCache(config, part, facts) if config.cache else None
            vectors = cache.read() if cache is not None and not config.refresh else None
            if vectors is None:
                encoder = encoder or load()
                vectors = encoder.encode(part, lambda done: bar.advance(task, done))
                settle()
                if cache is not None:
                    written.append((writer.submit(cache.write, vectors), cache))
                elif number == 0:
                    room_for(len(distinct), vectors.shape[1])
            else:
                bar.advance(task, len(part))
                settle()
            found.append(vectors)
            if len(parts) > 1:
                _LOG.info("%d of %d parts are embedded", number + 1, len(parts))
        settle()
    return Vectors(found, None if len(distinct) == len(order) else torch.tensor(order))


class CorpusCache:
    """The file of one corpus under one encoder."""

    def __init__(
        self, config: EmbeddingConfig, texts: Sequence[str], facts: Mapping[str, str]
    ) -> None:
        """Args:
        config: where the cache is.
        texts: the distinct texts, in order.
        facts: what :meth:`facts` returned.
        """
        corpus = b"".join(hashlib.sha256(text.encode()).digest() for text in texts)
        self._rows = len(texts)
        self._facts = {**facts, "corpus": hashlib.sha256(corpus).hexdigest()}
        name = hashlib.sha256(json.dumps(self._facts, sort_keys=True).encode()).hexdigest()[:32]
        self.path = config.cache_root() / _FOLDER / f"{name}.safetensors"
        self._limit = int(config.cache_limit_gib * 2**30)

    @staticmethod
    def facts(config: EmbeddingConfig, device: torch.device) -> dict[str, str]:
        """Return all but the texts that shapes vectors; ``dtype: auto`` goes by the device.

        Raises:
            AssetError: the encoder is missing or a pinned file has changed.
        """
        files = locate(config)
        return {
            "layout": _LAYOUT,
            **files.hashes(),
            "modality": "text",
            "pooling": files.pooling(config),
            "max_length": str(config.max_length),
            "dtype": str(resolve_precision(config, device)),
        }

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
        line = f"{self.path} is damaged ({problem}); what it held is embedded again"
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
    return hashlib.sha256(vectors.contiguous().numpy().data).hexdigest()
