"""Texts to tokens, tokens to batches, and the states of tokens to one vector a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from marec_env.embeddings.config import Pooling
from marec_env.errors import AssetError, DataError

__all__ = [
    "Ids",
    "PackedBatch",
    "TextTokenizer",
    "clean",
    "embed_padded",
    "pack",
    "pool",
    "token_budget_batches",
]

Ids = NDArray[np.int64]
"""One text's token numbers, ``[L]``, L >= 1."""


def clean(text: str) -> str:
    """Return the text as valid Unicode: lone surrogates, which UTF-8 lacks, become ``?``.

    Raises:
        DataError: not a string.
    """
    if not isinstance(text, str):
        raise DataError(f"a text to embed must be a string, got {type(text).__name__}: {text!r}")
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


class TextTokenizer:
    """A ``tokenizer.json`` with truncation and without padding."""

    def __init__(self, folder: Path, max_length: int) -> None:
        """Args:
        folder: holds ``tokenizer.json``.
        max_length: tokens kept of a text, special tokens included.

        Raises:
            AssetError: the file is missing or cannot be read.
        """
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise AssetError(
                f"{path} is missing; save the tokenizer with "
                "AutoTokenizer.from_pretrained(...).save_pretrained(folder)"
            )
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise AssetError(f"{path} is not a tokenizer: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        """Return each text's token numbers, special tokens included."""
        encodings = self._tokenizer.encode_batch_fast([clean(text) for text in texts])
        # a tokenizer that adds no special tokens finds nothing in an empty text
        return [np.asarray(encoding.ids or [0], dtype=np.int64) for encoding in encodings]


def token_budget_batches(
    tokens: Sequence[Ids], budget: int, padded: bool = False
) -> Iterator[list[int]]:
    """Yield places of texts, sorted by length, so that each batch holds at most ``budget`` tokens.

    A single text above the budget is a batch by itself. With ``padded`` every text of a batch
    counts as long as the longest.
    """
    batch: list[int] = []
    total = 0
    for row in sorted(range(len(tokens)), key=lambda row: len(tokens[row])):
        length = len(tokens[row])
        after = length * (len(batch) + 1) if padded else total + length
        if batch and after > budget:
            yield batch
            batch, total = [], 0
        batch.append(row)
        total += length
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Texts laid end to end, in order of length, without padding."""

    tokens: Tensor
    """Int64 ``[T]``."""
    positions: Tensor
    """Int64 ``[T]``: 0 at the start of each text."""
    lengths: Tensor
    """Int64 ``[n]``, ascending, all >= 1; they add up to T."""


def pack(tokens: Sequence[Ids], pinned: bool = False) -> PackedBatch:
    """Lay texts, ascending in length, end to end; ``pinned`` memory is quicker to send to CUDA."""
    lengths = np.fromiter((len(ids) for ids in tokens), dtype=np.int64, count=len(tokens))
    flat = np.concatenate(tokens)
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(flat.shape[0], dtype=np.int64) - np.repeat(starts, lengths)
    parts = [torch.from_numpy(part) for part in (flat, positions, lengths)]
    return PackedBatch(*(part.pin_memory() if pinned else part for part in parts))


def pool(states: Tensor, lengths: Tensor, pooling: Pooling) -> Tensor:
    """Return unit vectors, float32 ``[n, D]``, from the states ``[T, D]`` of texts that lie end to
    end, ``lengths`` int64 ``[n]`` tokens each.
    """
    lengths = lengths.to(states.device, non_blocking=True)
    ends = lengths.cumsum(0)
    if pooling == "cls":
        pooled = states[ends - lengths].float()
    elif pooling == "last":
        pooled = states[ends - 1].float()
    else:
        # unsafe: lengths are not fetched from the device to be checked
        pooled = torch.segment_reduce(states.float(), "mean", lengths=lengths, unsafe=True)
    return functional.normalize(pooled, dim=1)


def embed_padded(model: Any, tokens: Sequence[Ids], pooling: Pooling) -> Tensor:
    """Return unit vectors, float32 ``[n, D]``, by a transformers model on a padded batch."""
    lengths = torch.tensor([len(text) for text in tokens], device=model.device)
    mask = torch.arange(int(lengths.max()), device=model.device) < lengths.unsqueeze(1)
    ids = torch.full(mask.shape, model.config.pad_token_id or 0, device=model.device)
    ids[mask] = torch.from_numpy(np.concatenate(tokens)).to(model.device)
    states = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    return pool(states[mask], lengths, pooling)
