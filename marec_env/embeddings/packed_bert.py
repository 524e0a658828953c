"""BERT without padding: every matrix product runs over real tokens only.

Texts lie end to end in one ``[T, D]`` tensor. Attention stays inside a text: on CPU, texts of equal
length form one dense ``scaled_dot_product_attention`` call; on CUDA one variable-length flash
attention call covers the batch (``torch.nn.attention.varlen``).

The layer is that of Devlin et al., "BERT" (NAACL 2019), post-norm, as in transformers'
``BertModel``; RoBERTa differs in its first position only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from marec_env.embeddings.attention import Attend, grouped_attention, varlen_attention
from marec_env.embeddings.config import Pooling
from marec_env.embeddings.linear import Linear, linear
from marec_env.embeddings.pooling import pool_packed
from marec_env.embeddings.tokens import Ids, PackedBatch, pack
from marec_env.errors import AssetError

__all__ = ["BertShape", "PackedBert"]

_TYPES_WITH_OFFSET = ("roberta", "xlm-roberta")
_TYPES = ("bert", *_TYPES_WITH_OFFSET)


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

    padded = False

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
        self.dimension = shape.width
        self.max_tokens: int | None = shape.max_tokens
        self.device = device
        self.dtype = dtype
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
        self._layers: list[_Layer] = []
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

    def embed(self, tokens: Sequence[Ids], pooling: Pooling) -> Tensor:
        """See :class:`marec_env.embeddings.models.TokenModel`."""
        batch = pack(tokens, pinned=self.device.type == "cuda")
        return pool_packed(self.forward(batch), batch, pooling)

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return the last layer's states, ``[T, D]`` in the model's precision."""
        attend = self._attention(batch)
        tokens = batch.tokens.to(self.device, non_blocking=True)
        positions = batch.positions.to(self.device, non_blocking=True)
        state = self._normalise(self._words[tokens] + self._positions[positions], self._norm)
        for layer in self._layers:
            mixed = attend(layer.qkv.plain(state))
            state = self._normalise(layer.out.plus(mixed, state), layer.out_norm)
            state = self._normalise(layer.down.plus(layer.up.gelu(state), state), layer.down_norm)
        return state

    @property
    def path(self) -> str:
        """Which kernels compute the vectors, for the log."""
        if self.device.type == "cuda":
            kernel = "variable-length" if self.dtype == torch.bfloat16 else "grouped"
            return f"packed batches, {kernel} attention"
        return f"packed batches, grouped attention, {type(self._layers[0].up).__name__}"

    def _attention(self, batch: PackedBatch) -> Attend:
        if self.device.type == "cuda" and self.dtype == torch.bfloat16:
            return varlen_attention(batch, self.shape.heads, self.device)
        return grouped_attention(batch, self.shape.heads)

    def _normalise(self, state: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
        return functional.layer_norm(state, (self.shape.width,), *weights, eps=self.shape.epsilon)


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
