"""Texts to tokens, and tokens to batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marec_env.errors import AssetError, DataError

__all__ = ["Ids", "PackedBatch", "TextTokenizer", "clean", "pack", "token_budget_batches"]

Ids = NDArray[np.int64]
"""One text's token numbers, ``[L]``, L >= 1."""


def clean(text: str) -> str:
    """Return the text as valid Unicode: lone surrogates, which UTF-8 lacks, become ``?``.

    Raises:
        DataError: not a string.
    """
    if not isinstance(text, str):
        raise DataError(f"a text to embed must be a string, got {type(text).__name__}: {text!r}")
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


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


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Texts laid end to end, in order of length, without padding."""

    tokens: Tensor
    """Int64 ``[T]``."""
    positions: Tensor
    """Int64 ``[T]``: 0 at the start of each text."""
    lengths: Tensor
    """Int64 ``[n]``, ascending, all >= 1; they add up to T."""

    def groups(self) -> list[tuple[int, int, int, int]]:
        """Return runs of equal length: (first token, first text, texts, tokens in each)."""
        values, counts = torch.unique_consecutive(self.lengths, return_counts=True)
        runs, token, text = [], 0, 0
        for length, count in zip(values.tolist(), counts.tolist(), strict=True):
            runs.append((token, text, count, length))
            token, text = token + length * count, text + count
        return runs


def token_budget_batches(
    tokens: Sequence[Ids], budget: int, padded: bool = False
) -> Iterator[list[int]]:
    """Yield places of texts, sorted by length, so that each batch holds at most ``budget`` tokens.

    A single text above the budget is a batch by itself. With ``padded`` every text of a batch
    counts as long as the longest.
    """
    order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
    batch: list[int] = []
    total = 0
    for row in order:
        length = len(tokens[row])
        after = length * (len(batch) + 1) if padded else total + length
        if batch and after > budget:
            yield batch
            batch, total = [], 0
        batch.append(row)
        total += length
    if batch:
        yield batch


def pack(tokens: Sequence[Ids], pinned: bool = False) -> PackedBatch:
    """Lay texts, ascending in length, end to end; ``pinned`` memory is quicker to send to CUDA."""
    lengths = np.fromiter((len(ids) for ids in tokens), dtype=np.int64, count=len(tokens))
    flat = np.concatenate(tokens)
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(flat.shape[0], dtype=np.int64) - np.repeat(starts, lengths)
    parts = [torch.from_numpy(part) for part in (flat, positions, lengths)]
    return PackedBatch(*(part.pin_memory() if pinned else part for part in parts))
