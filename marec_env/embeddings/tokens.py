"""Texts to tokens, tokens to batches, and the states of tokens to one vector a text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from marec_env.embeddings.config import Pooling
from marec_env.errors import AssetError, DataError

_MARK = "|"  # a word by itself to BERT, whatever is beside it
_WORD_BY_WORD = ["BertNormalizer", "BertPreTokenizer", "WordPiece"]
_LOOKS_AROUND = ("lstrip", "rstrip", "single_word", "normalized")  # flags of added tokens
_GROUP = 64  # new words tokenised as one text
_KNOWN_WORDS = 1 << 18  # some 50 MB

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


def load_tokenizer(folder: Path) -> Any:
    """Return a folder's tokenizer, of the library ``tokenizers``.

    Raises:
        AssetError: its file is missing or cannot be read.
    """
    from tokenizers import Tokenizer

    if (folder / "sp.model").is_file() and not (folder / "tokenizer.json").is_file():
        from marec_env.embeddings.multilingual import sentence_pieces

        return sentence_pieces(folder / "sp.model")
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise AssetError(
            f"{path} is missing; save the tokenizer with "
            "AutoTokenizer.from_pretrained(...).save_pretrained(folder)"
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise AssetError(f"{path} is not a tokenizer: {error}") from error


class TextTokenizer:
    """A ``tokenizer.json`` with truncation and without padding."""

    def __init__(self, folder: Path, max_length: int) -> None:
        """Args:
        folder: holds ``tokenizer.json``, or ``sp.model``.
        max_length: tokens kept of a text, special tokens included.

        Raises:
            AssetError: the file is missing or cannot be read.
        """
        self._tokenizer = load_tokenizer(folder)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._words = _WordTable.of(self._tokenizer, max_length)
        if self._words is None:
            self._tokenizer.enable_truncation(max_length)

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        """Return each text's token numbers, special tokens included."""
        cleaned = [clean(text) for text in texts]
        if self._words is not None:
            return self._words(cleaned)
        encodings = self._tokenizer.encode_batch_fast(cleaned)
        # a tokenizer that adds no special tokens finds nothing in an empty text
        return [np.asarray(encoding.ids or [0], dtype=np.int64) for encoding in encodings]


class _Numbers(dict[str, int]):
    """Numbers words in the order in which they are first asked for."""

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        return number


class _WordTable:
    """The tokens of words met before, for tokenizers that treat a text word by word as BERT's do.

    Most words of a corpus come again and again. A look-up costs a twentieth of the tokenizer's own
    work, which is left for new words, by all its threads (``benchmarks/embeddings.py tokenising``).
    """

    def __init__(self, tokenizer: Any, max_length: int, first: list[int], last: list[int]) -> None:
        """Args:
        tokenizer: without padding and truncation.
        max_length: tokens kept of a text.
        first, last: the special tokens around a text.
        """
        self._tokenizer, self._max_length, self._last = tokenizer, max_length, last
        self._mark: int = tokenizer.token_to_id(_MARK)
        self._seeds = [[self._mark], first, last]
        self._forget()

    @staticmethod
    def of(tokenizer: Any, max_length: int) -> _WordTable | None:
        """Return the table of a tokenizer; ``None`` if its words may depend on their neighbours."""
        settings = json.loads(tokenizer.to_str())
        parts = ("normalizer", "pre_tokenizer", "model")
        added = settings["added_tokens"]
        whole = tokenizer.encode(_MARK).ids
        if (
            [(settings[part] or {}).get("type") for part in parts] != _WORD_BY_WORD
            or any(token[flag] for token in added for flag in _LOOKS_AROUND)
            or any(mark in token["content"] for token in added for mark in (" ", _MARK))
            or whole.count(tokenizer.token_to_id(_MARK)) != 1
            or len(whole) > max_length + 1
        ):
            return None
        place = whole.index(tokenizer.token_to_id(_MARK))
        return _WordTable(tokenizer, max_length, whole[:place], whole[place + 1 :])

    def _forget(self) -> None:
        self._numbers = _Numbers(zip((_MARK, "the first", "the last"), range(3), strict=True))
        self._lengths = np.array([len(seed) for seed in self._seeds])
        self._ids = np.array([token for seed in self._seeds for token in seed])

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        """See :class:`TextTokenizer`."""
        number, chosen, counts = self._numbers.__getitem__, list[int](), list[int]()
        for text in texts:
            words = text.replace(_MARK, f" {_MARK} ").split(" ")
            if len(words) > self._max_length:
                words = self._cut(words)
            chosen += (1, *map(number, words), 2)
            counts.append(len(words) + 2)
        self._learn()
        words_of = np.array(chosen, np.int64)
        lengths = self._lengths[words_of]
        ends = lengths.cumsum()
        starts = (self._lengths.cumsum() - self._lengths)[words_of] - (ends - lengths)
        tokens = self._ids[np.repeat(starts, lengths) + np.arange(lengths.sum())]
        if len(self._numbers) > _KNOWN_WORDS:
            self._forget()
        bounds = pairwise([0, *ends[np.array(counts, np.int64).cumsum() - 1].tolist()])
        return [self._kept(tokens[start:end]) for start, end in bounds]

    def _kept(self, tokens: Ids) -> Ids:
        if len(tokens) <= self._max_length:
            return tokens if len(tokens) else np.zeros(1, np.int64)
        last = np.array(self._last, np.int64)  # of a decoder's tokenizer there is none
        return np.concatenate([tokens[: self._max_length - len(last)], last])

    def _cut(self, words: list[str]) -> list[str]:
        """Return the words that fill a text; those of invisible characters have no token."""
        visible = 0
        for place, word in enumerate(words):
            visible += bool(word) and word.isascii() and word.isprintable()
            if visible > self._max_length:
                return words[:place]
        return words

    def _learn(self) -> None:
        """Tokenise new words, many in a text, for a text costs more than a word."""
        new = list(islice(self._numbers, len(self._lengths), None))
        groups = [new[start : start + _GROUP] for start in range(0, len(new), _GROUP)]
        between = f" {_MARK} "
        encodings = self._tokenizer.encode_batch_fast(
            [between.join([*group, ""]) for group in groups], add_special_tokens=False
        )
        found = np.array([token for encoding in encodings for token in encoding.ids], np.int64)
        ends = np.flatnonzero(found == self._mark)
        self._lengths = np.append(self._lengths, np.diff(ends, prepend=-1) - 1)
        self._ids = np.append(self._ids, found[found != self._mark])


def token_budget_batches(
    tokens: Sequence[Ids], budget: int, padded: bool = False
) -> Iterator[list[int]]:
    """Yield places of texts, sorted by length, so that each batch holds at most ``budget`` tokens.

    A single text above the budget is a batch by itself. With ``padded`` every text of a batch
    counts as long as the longest.
    """
    lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
    order = lengths.argsort(kind="stable")
    while len(order):
        ahead = lengths[order]
        cost = ahead * np.arange(1, len(order) + 1) if padded else ahead.cumsum()
        count = max(1, int(cost.searchsorted(budget, side="right")))
        yield order[:count].tolist()
        order = order[count:]


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
