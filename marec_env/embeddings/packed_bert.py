"""BERT without padding: every matrix product runs over real tokens only.

Texts lie end to end in one ``[T, D]`` tensor. Attention stays inside a text: on CPU, texts of equal
length form one dense ``scaled_dot_product_attention`` call; on CUDA one variable-length flash
attention call covers the batch (``torch.nn.attention.varlen``).

The layer is that of Devlin et al., "BERT" (NAACL 2019), post-norm, as in transformers'
``BertModel``; RoBERTa differs in its first position only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from marec_env.embeddings.linear import Linear, linear
from marec_env.embeddings.tokens import PackedBatch
from marec_env.errors import AssetError

__all__ = ["BertShape", "PackedBert"]

_TYPES_WITH_OFFSET = ("roberta", "xlm-roberta")
_TYPES = ("bert", *_TYPES_WITH_OFFSET)
# Tokens up to which two bfloat16 products beat the fused CPU kernel (benchmarks/embeddings.py).
_SHORT = 64


@dataclass(frozen=True, slots=True)
class BertShape:
    """The numbers of a BERT-like model that its forward pass needs."""

    layers: int
    heads: int
    width: int
    epsilon: float
    max_tokens: int
    first_position: int
    """0 for BERT; RoBERTa starts after its padding token."""

    @staticmethod
    def read(folder: Path) -> BertShape | None:
        """Return the shape in ``config.json``; ``None`` if the model is not BERT-like."""
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        kind = config.get("model_type")
        if (
            kind not in _TYPES
            or config.get("hidden_act", "gelu") != "gelu"
            or config.get("position_embedding_type", "absolute") != "absolute"
            or config.get("is_decoder", False)
        ):
            return None
        first = int(config.get("pad_token_id", 1)) + 1 if kind in _TYPES_WITH_OFFSET else 0
        return BertShape(
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            width=int(config["hidden_size"]),
            epsilon=float(config.get("layer_norm_eps", 1e-12)),
            max_tokens=int(config["max_position_embeddings"]) - first,
            first_position=first,
        )


@dataclass(frozen=True, slots=True)
class _Layer:
    qkv: Linear
    out: Linear
    out_norm: tuple[Tensor, Tensor]
    up: Linear
    down: Linear
    down_norm: tuple[Tensor, Tensor]


class PackedBert:
    """The encoder stack, for inference."""

    def __init__(
        self, weights: dict[str, Tensor], shape: BertShape, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Args:
        weights: tensors by their transformers names, with or without a model prefix.
        shape: the model's numbers.
        dtype: float32 or bfloat16.
        device: CPU or CUDA.

        Raises:
            AssetError: a weight is missing.
        """
        self.shape = shape
        self.device = device
        table = _without_prefix(weights)

        def get(name: str) -> Tensor:
            if name not in table:
                raise AssetError(f"the encoder's weights lack '{name}'; it is not a whole BERT")
            return table[name].to(device, dtype)

        def pair(name: str) -> tuple[Tensor, Tensor]:
            return get(f"{name}.weight"), get(f"{name}.bias")

        self._words = get("embeddings.word_embeddings.weight")
        self._positions = (
            get("embeddings.position_embeddings.weight")[shape.first_position :]
            + get("embeddings.token_type_embeddings.weight")[0]
        )
        self._norm = pair("embeddings.LayerNorm")
        self._layers = []
        for number in range(shape.layers):
            base = f"encoder.layer.{number}"
            parts = [pair(f"{base}.attention.self.{part}") for part in ("query", "key", "value")]
            self._layers.append(
                _Layer(
                    qkv=linear(torch.cat([w for w, _ in parts]), torch.cat([b for _, b in parts])),
                    out=linear(*pair(f"{base}.attention.output.dense")),
                    out_norm=pair(f"{base}.attention.output.LayerNorm"),
                    up=linear(*pair(f"{base}.intermediate.dense")),
                    down=linear(*pair(f"{base}.output.dense")),
                    down_norm=pair(f"{base}.output.LayerNorm"),
                )
            )

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return the last layer's states, ``[T, D]`` in the model's precision."""
        attend = self._varlen(batch) if self.device.type == "cuda" else self._grouped(batch)
        tokens = batch.tokens.to(self.device, non_blocking=True)
        positions = batch.positions.to(self.device, non_blocking=True)
        state = self._normalise(self._words[tokens] + self._positions[positions], self._norm)
        for layer in self._layers:
            mixed = attend(layer.qkv.plain(state))
            state = self._normalise(layer.out.plus(mixed, state), layer.out_norm)
            state = self._normalise(layer.down.plus(layer.up.gelu(state), state), layer.down_norm)
        return state

    def _normalise(self, state: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
        return functional.layer_norm(state, (self.shape.width,), *weights, eps=self.shape.epsilon)

    def _grouped(self, batch: PackedBatch) -> Any:
        """Return attention over runs of texts of equal length."""
        heads, width = self.shape.heads, self.shape.width
        groups = batch.groups()

        def attend(qkv: Tensor) -> Tensor:
            out = qkv.new_empty(qkv.shape[0], width)
            for token, _, count, length in groups:
                run = slice(token, token + count * length)
                query, key, value = (
                    qkv[run].view(count, length, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
                )
                if qkv.dtype == torch.bfloat16 and length <= _SHORT:
                    mixed = _short_attention(query, key, value)
                else:
                    mixed = functional.scaled_dot_product_attention(query, key, value)
                out[run].view(count, length, heads, -1).copy_(mixed.transpose(1, 2))
            return out

        return attend

    def _varlen(self, batch: PackedBatch) -> Any:
        """Return flash attention over all texts of the batch at once."""
        from torch.nn.attention.varlen import varlen_attn

        heads, width = self.shape.heads, self.shape.width
        ends = functional.pad(batch.lengths.cumsum(0), (1, 0)).to(torch.int32)
        offsets = ends.to(self.device, non_blocking=True)
        longest = int(batch.lengths[-1])

        def attend(qkv: Tensor) -> Tensor:
            query, key, value = qkv.view(qkv.shape[0], 3, heads, -1).unbind(1)
            mixed = varlen_attn(query, key, value, offsets, offsets, longest, longest)
            assert isinstance(mixed, Tensor)
            return mixed.reshape(-1, width)

        return attend


def _short_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return attention as two batched products; all are ``[n, heads, L, D / heads]``."""
    count, heads, length, width = query.shape
    query, key, value = (part.reshape(count * heads, length, width) for part in (query, key, value))
    scores = torch.bmm(query, key.transpose(1, 2)).mul_(width**-0.5)
    return torch.bmm(scores.softmax(-1), value).view(count, heads, length, width)


def _without_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder's tensors without ``bert.``, ``roberta.`` or the like before the name."""
    marker = "embeddings.word_embeddings.weight"
    for name in weights:
        if name.endswith(marker):
            prefix = name.removesuffix(marker)
            return {
                key.removeprefix(prefix): value
                for key, value in weights.items()
                if key.startswith(prefix)
            }
    raise AssetError(f"the encoder's weights lack '{marker}'; it is not a whole BERT")
