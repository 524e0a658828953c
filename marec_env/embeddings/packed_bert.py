"""BERT without padding: every matrix product runs over real tokens only.

Texts lie end to end in one ``[T, D]`` tensor. Attention stays inside a text: on CPU, texts of equal
length form dense blocks; on CUDA in bf16 one variable-length flash attention call covers the batch
(``torch.nn.attention.varlen``). The layer is that of Devlin et al., "BERT" (NAACL 2019), post-norm,
as in transformers' ``BertModel``; RoBERTa differs in its first position only.

What this is for: 1.3 to 2.0 times the speed of transformers on sorted, padded batches on one core
(``benchmarks/embeddings.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from marec_env.embeddings.assets import EncoderFiles
from marec_env.embeddings.config import Pooling
from marec_env.embeddings.tokens import Ids, PackedBatch, pack, pool
from marec_env.errors import AssetError

_TYPES_WITH_OFFSET = ("roberta", "xlm-roberta")
_TYPES = ("bert", *_TYPES_WITH_OFFSET)
_WORDS = "embeddings.word_embeddings.weight"

# The fused result may differ from the plain one by rounding only: a few units in the last place of
# sums over the layer's width, relative to the largest entry.
_AGREEMENT = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
_PROBE_ROWS = 8

# Measured with benchmarks/embeddings.py attention.
_FUSED_FROM = {torch.float32: 17, torch.bfloat16: 1 << 30}  # tokens from which it is the quicker
_BLOCK_SCORES = 1 << 20  # scores at a time, so that they stay in the processor's cache
_VECTOR = 16  # 32-bit lanes of a 512-bit register; softmax is slow on rows that leave a rest
_SAFE_SCORE = 60.0  # exp of +-60 and sums of it are far inside float32, so need no shift

Attend = Callable[[Tensor], Tensor]
"""Maps queries, keys and values ``[T, 3 D]`` to mixed values ``[T, D]``."""


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
    def read(files: EncoderFiles) -> BertShape | None:
        """Return the shape in ``config.json``; ``None`` if the model is not BERT-like.

        Raises:
            AssetError: the file does not hold the numbers of a model.
        """
        config = files.settings()
        kind = config.get("model_type")
        if (
            kind not in _TYPES
            or config.get("hidden_act", "gelu") != "gelu"
            or config.get("position_embedding_type", "absolute") != "absolute"
            or config.get("is_decoder", False)
        ):
            return None
        try:
            first = int(config.get("pad_token_id", 1)) + 1 if kind in _TYPES_WITH_OFFSET else 0
            return BertShape(
                layers=int(config["num_hidden_layers"]),
                heads=int(config["num_attention_heads"]),
                width=int(config["hidden_size"]),
                epsilon=float(config.get("layer_norm_eps", 1e-12)),
                max_tokens=int(config["max_position_embeddings"]) - first,
                first_position=first,
            )
        except (KeyError, TypeError, ValueError) as error:
            path = files.folder / "config.json"
            raise AssetError(f"{path} does not describe a BERT: {error!r}") from error


class Linear:
    """``x W' + b``, alone, under GELU (exact, erf) or with a residual added; ``x`` is ``[T, in]``.

    On CPU by oneDNN, with the weight laid out once and GELU or the residual fused into the product:
    the path of torch.compile's CPU backend, used without the compiler. Where oneDNN is absent or
    disagrees with torch on a fixed input, and on CUDA, by ``torch.nn.functional``.
    """

    def __init__(self, weight: Tensor, bias: Tensor, prepack: bool = True) -> None:
        """Args:
        weight: ``[out, in]``.
        bias: ``[out]``.
        prepack: whether to try oneDNN.
        """
        self._weight, self._bias = weight, bias
        self._packed: Tensor | None = None
        if not prepack or weight.device.type != "cpu" or not torch._C._has_mkldnn:
            return
        expected = self._probe()
        try:  # private operators of torch's own compiler, so they are checked before use
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
            if self._agrees(self._probe(), expected):
                return
        except (RuntimeError, AttributeError, NotImplementedError):
            pass
        self._packed = None

    @property
    def kernel(self) -> str:
        """Which library computes the products."""
        return "torch" if self._packed is None else "oneDNN"

    def __call__(self, x: Tensor, gelu: bool = False, plus: Tensor | None = None) -> Tensor:
        """Return the product, ``[T, out]``."""
        if self._packed is None:
            found = functional.linear(x, self._weight, self._bias)
            found = functional.gelu(found) if gelu else found
            return found if plus is None else found.add_(plus)
        fused: Any = torch.ops.mkldnn._linear_pointwise
        given = (self._packed, self._bias)
        if plus is not None:
            found = fused.binary(x, plus, *given, "add")
        elif gelu:
            found = fused(x, *given, "gelu", [], "none")
        else:
            found = fused(x, *given, "none", [], "")
        assert isinstance(found, Tensor)
        return found

    @torch.inference_mode()
    def _probe(self) -> list[Tensor]:
        """Return all three forms on a fixed input."""

        def waves(function: Callable[[Tensor], Tensor], width: int) -> Tensor:
            numbers = torch.arange(_PROBE_ROWS * width, dtype=torch.float32)
            return function(numbers).view(_PROBE_ROWS, -1).to(self._weight.dtype)

        out, inner = self._weight.shape
        x = waves(torch.sin, inner)
        return [self(x), self(x, gelu=True), self(x, plus=waves(torch.cos, out))]

    def _agrees(self, found: list[Tensor], expected: list[Tensor]) -> bool:
        tolerance = _AGREEMENT[self._weight.dtype]
        return all(
            bool((one - other).abs().max() <= tolerance * other.abs().max().clamp(min=1.0))
            for one, other in zip(found, expected, strict=True)
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
        self.dimension, self.max_tokens = shape.width, shape.max_tokens
        self._device = device
        flash = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        self._varlen = flash and dtype == torch.bfloat16
        prefix = next((n.removesuffix(_WORDS) for n in weights if n.endswith(_WORDS)), "")

        def get(name: str) -> Tensor:
            if prefix + name not in weights:
                raise AssetError(f"the encoder's weights lack '{name}'; it is not a whole BERT")
            return weights[prefix + name].to(device, dtype)

        def pair(name: str) -> tuple[Tensor, Tensor]:
            return get(f"{name}.weight"), get(f"{name}.bias")

        self._words = get(_WORDS)
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
                    qkv=Linear(torch.cat([w for w, _ in parts]), torch.cat([b for _, b in parts])),
                    out=Linear(*pair(f"{base}.attention.output.dense")),
                    out_norm=pair(f"{base}.attention.output.LayerNorm"),
                    up=Linear(*pair(f"{base}.intermediate.dense")),
                    down=Linear(*pair(f"{base}.output.dense")),
                    down_norm=pair(f"{base}.output.LayerNorm"),
                )
            )
        attention = "variable-length" if self._varlen else "grouped"
        kernel = self._layers[0].up.kernel if self._layers else "no"
        self.path = f"packed batches, {attention} attention, {kernel} products"
        """Which kernels compute the vectors, for the log."""

    def embed(self, tokens: Sequence[Ids], pooling: Pooling) -> Tensor:
        """Return unit vectors, float32 ``[n, D]`` on the model's device.

        Args:
            tokens: one batch, ascending in length.
            pooling: mean, cls or last.
        """
        batch = pack(tokens, pinned=self._device.type == "cuda")
        return pool(self.forward(batch), batch.lengths, pooling)

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return the last layer's states, ``[T, D]`` in the model's precision."""
        attend = (
            varlen_attention(batch, self.shape.heads, self._device)
            if self._varlen
            else grouped_attention(batch, self.shape.heads)
        )
        tokens = batch.tokens.to(self._device, non_blocking=True)
        positions = batch.positions.to(self._device, non_blocking=True)
        state = self._normalise(self._words[tokens] + self._positions[positions], self._norm)
        for layer in self._layers:
            mixed = attend(layer.qkv(state))
            state = self._normalise(layer.out(mixed, plus=state), layer.out_norm)
            inner = layer.up(state, gelu=True)
            state = self._normalise(layer.down(inner, plus=state), layer.down_norm)
        return state

    def _normalise(self, state: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
        return functional.layer_norm(state, (self.shape.width,), *weights, eps=self.shape.epsilon)


def grouped_attention(batch: PackedBatch, heads: int) -> Attend:
    """Return attention over runs of texts of equal length, for the CPU, and CUDA in float32.

    Which kernel is quickest on the CPU was measured: the fused one in float32, except for very
    short texts; two batched products in bfloat16, with the softmax written out where rows are not
    whole vectors.
    """
    runs = torch.unique_consecutive(batch.lengths, return_counts=True)
    groups = list(zip(*(part.tolist() for part in runs), strict=True))

    def attend(qkv: Tensor) -> Tensor:
        out = qkv.new_empty(qkv.shape[0], qkv.shape[1] // 3)
        start = 0
        for length, texts in groups:
            fused = not qkv.is_cpu or length >= _FUSED_FROM[qkv.dtype]
            step = texts if fused else max(1, _BLOCK_SCORES // (heads * length * length))
            for first in range(0, texts, step):
                count = min(step, texts - first)
                run = slice(start, start := start + count * length)
                parts = qkv[run].view(count, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
                if fused:
                    query, key, value = parts.unbind(0)
                    mixed = functional.scaled_dot_product_attention(query, key, value)
                else:
                    mixed = _two_products(parts)
                out[run].view(count, length, heads, -1).copy_(mixed.transpose(1, 2))
        return out

    return attend


def varlen_attention(batch: PackedBatch, heads: int, device: torch.device) -> Attend:
    """Return flash attention over all texts of the batch in one call, for CUDA."""
    from torch.nn.attention.varlen import varlen_attn

    # Summed up on the device, for only what is pinned gets there without a wait.
    ends = batch.lengths.to(device, non_blocking=True).cumsum(0)
    offsets = functional.pad(ends, (1, 0)).to(torch.int32)
    longest = int(batch.lengths[-1])

    def attend(qkv: Tensor) -> Tensor:
        query, key, value = qkv.view(qkv.shape[0], 3, heads, -1).unbind(1)
        mixed = varlen_attn(query, key, value, offsets, offsets, longest, longest)
        assert isinstance(mixed, Tensor)
        return mixed.reshape(qkv.shape[0], -1)

    return attend


def _two_products(parts: Tensor) -> Tensor:
    """Return attention by batched products; ``parts`` is ``[3, n, heads, L, d]``."""
    _, count, heads, length, width = parts.shape
    query, key, value = parts.reshape(3, count * heads, length, width).unbind(0)
    scores = torch.bmm(query, key.transpose(1, 2)).mul_(width**-0.5)
    return torch.bmm(_softmax(scores), value).view(count, heads, length, width)


def _softmax(scores: Tensor) -> Tensor:
    """Return the softmax over the last dimension."""
    if scores.shape[-1] % _VECTOR == 0 or float(scores.abs().max()) > _SAFE_SCORE:
        return scores.softmax(-1)
    powers = scores.float().exp_()
    return powers.div_(powers.sum(-1, keepdim=True)).to(scores.dtype)
