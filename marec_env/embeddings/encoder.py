"""Texts to unit vectors with the weights of a BERT-like or any other transformers model."""

from __future__ import annotations

import hashlib
import logging
import re
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from marec_env.embeddings.assets import MULTILINGUAL, EncoderFiles, locate
from marec_env.embeddings.config import EmbeddingConfig, Pooling
from marec_env.embeddings.multilingual import ConvolutionalEncoder
from marec_env.embeddings.packed_bert import BertShape, PackedBert
from marec_env.embeddings.tokens import Ids, TextTokenizer, embed_padded, token_budget_batches
from marec_env.embeddings.vectors import room_for
from marec_env.errors import ConfigError
from marec_env.memory import require_memory

_LOG = logging.getLogger(__name__)
# Texts tokenised and sorted by length together: enough for several batches, little memory.
CHUNK = 4096
_CUDA_CHUNK = 16_384
_CPU_BUDGET = 4096  # tokens; larger batches leave the processor's cache
_CUDA_BUDGET = 131_072  # tokens; measured on an H100, docs/embeddings.md
_CUDA_SHARE = 4  # a batch may fill one in so many of the device's free bytes
_FLOATS_A_TOKEN = 12  # times the width: states, queries, keys, values, the hidden layer of the MLP
_LENGTH_NAMES = ("max_position_embeddings", "n_positions", "n_ctx")
_WORD = re.compile(r"\w+")

OnBatch = Callable[[int], object]
"""Is told how many inputs are done since it was told last."""


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Return the device; ``auto`` or ``None`` is CUDA where there is one."""
    if device is None or str(device) == "auto":
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


def resolve_budget(config: EmbeddingConfig, device: torch.device, width: int) -> int:
    """Return the tokens of a batch; ``auto`` goes by the device and its free memory.

    Args:
        config: whose ``token_budget`` wins where it is a number.
        device: where the encoder runs.
        width: of its states.
    """
    if config.token_budget != "auto":
        return config.token_budget
    if device.type != "cuda":
        return _CPU_BUDGET
    free, _ = torch.cuda.mem_get_info(device)
    fits = free // (_CUDA_SHARE * width * _FLOATS_A_TOKEN * 4)
    return max(_CPU_BUDGET, min(_CUDA_BUDGET, int(fits)))


@dataclass(slots=True)
class _Batch:
    """Vectors on their way to the host."""

    rows: list[int]
    vectors: Tensor
    ready: torch.cuda.Event | None

    @staticmethod
    def sent(rows: list[int], vectors: Tensor) -> _Batch:
        """Queue the copy behind the batch's own work, so that no later batch is waited for."""
        if not vectors.is_cuda:
            return _Batch(rows, vectors, None)
        host = torch.empty(vectors.shape, pin_memory=True).copy_(vectors, non_blocking=True)
        return _Batch(rows, host, torch.cuda.current_stream(vectors.device).record_event())

    def arrive(self, out: Tensor) -> int:
        """Write the vectors to their rows; return how many."""
        if self.ready is not None:
            self.ready.synchronize()
        out[self.rows] = self.vectors
        return len(self.rows)


class TextEncoder:
    """An encoder in memory, loaded once."""

    def __init__(self, config: EmbeddingConfig, device: str | torch.device = "auto") -> None:
        """Load and verify the weights.

        Raises:
            AssetError: weights are missing or do not have the expected hash.
            ConfigError: ``max_length`` is more than the model's positions.
        """
        self.config = config
        self._device = resolve_device(device)
        dtype = resolve_precision(config, self._device)
        files = locate(config)
        files.verify()
        self._tokenizer = TextTokenizer(files.folder, config.max_length)
        self._pooling = files.pooling(config)
        self._model = _model(files, dtype, self._device)
        self.dimension = self._model.dimension
        self._budget = resolve_budget(config, self._device, self.dimension)
        limit = self._model.max_tokens
        if limit is not None and config.max_length > limit:
            raise ConfigError(
                f"max_length is {config.max_length}, but encoder '{files.name}' has "
                f"{limit} positions; allowed: 2 to {limit}"
            )
        _LOG.info(
            "encoder '%s' on %s in %s: %s, up to %d tokens",
            files.name, self._device, dtype, self._model.path, self._budget,
        )  # fmt: skip

    def encode(self, inputs: Sequence[str], on_batch: OnBatch | None = None) -> Tensor:
        """Return unit vectors, float32 ``[N, D]`` on the CPU, in the order of the texts.

        On CUDA a chunk is tokenised while the device computes the one before.
        """
        out = torch.empty(room_for(len(inputs), self.dimension))
        size = CHUNK if self._device.type == "cpu" else _CUDA_CHUNK
        queued: deque[tuple[Tensor, list[_Batch]]] = deque()
        for start in range(0, len(inputs), size):
            tokens = self._tokenizer(inputs[start : start + size])
            queued.append((out[start:], self._encode_chunk(tokens)))
            if self._device.type == "cpu" or len(queued) > 1:  # CUDA always has a chunk to work on
                _arrive(queued, on_batch)
        while queued:
            _arrive(queued, on_batch)
        return out

    @torch.inference_mode()
    def _encode_chunk(self, tokens: list[Ids]) -> list[_Batch]:
        batches = list(token_budget_batches(tokens, self._budget, self._model.padded))
        if self._device.type == "cpu":
            largest = max(sum(len(tokens[row]) for row in rows) for rows in batches)
            require_memory(
                f"embedding {largest:,} tokens at a time",
                largest * self.dimension * _FLOATS_A_TOKEN * 4.0,
                "lower environment.embeddings.token_budget or max_length",
            )
        return [
            _Batch.sent(rows, self._model.embed([tokens[row] for row in rows], self._pooling))
            for rows in batches
        ]


def _arrive(queued: deque[tuple[Tensor, list[_Batch]]], on_batch: OnBatch | None) -> None:
    out, batches = queued.popleft()
    for batch in batches:
        done = batch.arrive(out)
        if on_batch is not None:
            on_batch(done)


def _model(
    files: EncoderFiles, dtype: torch.dtype, device: torch.device
) -> PackedBert | ConvolutionalEncoder | _PaddedModel:
    if files.name == MULTILINGUAL:
        return ConvolutionalEncoder(files.weight_files()[0], device)
    shape = BertShape.read(files)
    if shape is None:
        return _PaddedModel(files, dtype, device)
    return PackedBert(files.read_weights(), shape, dtype, device)


class _PaddedModel:
    """Any transformers encoder or decoder, on batches padded to their longest text."""

    padded = True

    def __init__(self, files: EncoderFiles, dtype: torch.dtype, device: torch.device) -> None:
        model = files.load_model(dtype)
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        self._model: Any = model.to(device)
        self.dimension = int(model.config.hidden_size)
        limits = [getattr(model.config, name, None) for name in _LENGTH_NAMES]
        self.max_tokens = next((int(limit) for limit in limits if limit), None)
        self.path = f"batches of like length, padded, {type(model).__name__}"

    def embed(self, tokens: Sequence[Ids], pooling: Pooling) -> Tensor:
        """See :meth:`PackedBert.embed`."""
        return embed_padded(self._model, tokens, pooling)


class HashingTestEncoder:
    """Signed feature hashing of words (Weinberger et al., ICML 2009); for tests only.

    Texts that share words are close; meaning plays no part, so no result should rest on it.
    """

    dimension = 64

    def encode(self, inputs: Sequence[str], on_batch: OnBatch | None = None) -> Tensor:
        """Return unit vectors, float32 ``[N, 64]``; a text without words gives a fixed vector."""
        places: dict[str, int] = {}  # of a word: its column, and below the columns its sign
        cells, rows = array("q"), array("q")
        for row, text in enumerate(inputs):
            for word in _WORD.findall(text.lower()) or [""]:
                if (place := places.get(word)) is None:
                    digest = hashlib.blake2b(
                        word.encode("utf-8", "replace"), digest_size=8
                    ).digest()
                    column = int.from_bytes(digest[1:], "little") % self.dimension
                    place = places[word] = 2 * column + (digest[0] & 1)
                cells.append(place)
                rows.append(row)
        out = torch.zeros(len(inputs), self.dimension)
        cell, place_of = (torch.tensor(values, dtype=torch.int64) for values in (cells, rows))
        out.index_put_((place_of, cell // 2), 2.0 * (cell % 2) - 1.0, accumulate=True)
        out[~out.any(dim=1), 0] = 1.0  # words that cancelled one another
        return functional.normalize(out, dim=1)
