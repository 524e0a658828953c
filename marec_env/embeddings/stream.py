"""Texts that arrive during an episode: search phrases, reviews, new items."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor

from marec_env.embeddings.config import EmbeddingConfig
from marec_env.embeddings.embed import Embedder
from marec_env.embeddings.reduction import Reduction
from marec_env.errors import ConfigError

__all__ = ["Arrival", "EmbeddingStream"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """The vectors of the texts that one call submitted."""

    request: int
    """The request at which the texts were submitted."""
    texts: tuple[str, ...]
    vectors: Tensor
    """Float32 ``[n, d]``, unit vectors on the CPU."""


class EmbeddingStream:
    """Embeds in a thread while the simulation goes on.

    Which results a request sees depends on request numbers alone, never on how quick the thread
    was: texts submitted at request t arrive at request t + ``delay``. ``collect`` waits only if the
    thread has fallen behind by more than that. The texts of one call are batched among themselves
    only, so their vectors do not depend on what else was in the queue.
    """

    def __init__(
        self,
        config: EmbeddingConfig,
        reduction: Reduction | None = None,
        delay: int = 1,
        device: str | torch.device = "auto",
    ) -> None:
        """Args:
        config: encoder and cache, as for the catalog.
        reduction: applied to the vectors, as fitted on the catalog.
        delay: requests between submission and arrival, >= 0; 0 waits for the thread.
        device: where the encoder runs.

        Raises:
            AssetError: the encoder is missing.
            ConfigError: a negative delay.
        """
        if delay < 0:
            raise ConfigError(f"the delay of a stream is {delay}; allowed: 0, 1, 2, ...")
        self._embedder = Embedder(config, device)
        self._reduction = reduction
        self._delay = delay
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._waiting: deque[tuple[int, tuple[str, ...], Future[Tensor]]] = deque()

    def submit(self, request: int, texts: Sequence[str]) -> None:
        """Queue texts and return at once; requests never go backwards.

        Raises:
            ConfigError: an earlier request than that of the last call.
        """
        if self._waiting and request < self._waiting[-1][0]:
            raise ConfigError(
                f"texts of request {request} came after those of {self._waiting[-1][0]}"
            )
        if texts:
            fixed = tuple(texts)
            self._waiting.append((request, fixed, self._pool.submit(self._embed, fixed)))

    def collect(self, request: int) -> list[Arrival]:
        """Return, once, everything submitted at request - delay or before, in order.

        Raises:
            DataError: a text was not a string.
        """
        arrivals = []
        while self._waiting and self._waiting[0][0] + self._delay <= request:
            submitted, texts, future = self._waiting.popleft()
            arrivals.append(Arrival(submitted, texts, future.result()))
        return arrivals

    def close(self) -> None:
        """Drop what is queued and end the thread."""
        self._pool.shutdown(cancel_futures=True)
        self._waiting.clear()
        self._embedder.close()

    def __enter__(self) -> EmbeddingStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _embed(self, texts: tuple[str, ...]) -> Tensor:
        vectors = self._embedder.encode(texts)
        return vectors if self._reduction is None else self._reduction.apply(vectors)
