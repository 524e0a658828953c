"""Which model turns tokens into vectors: packed if BERT-like, else transformers' own, padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from marec_env.embeddings.assets import EncoderFiles
from marec_env.embeddings.config import Pooling
from marec_env.embeddings.packed_bert import BertShape, PackedBert
from marec_env.embeddings.pooling import pool_padded
from marec_env.embeddings.tokens import Ids
from marec_env.errors import AssetError

__all__ = ["PaddedModel", "TokenModel", "load_model"]

_LENGTH_NAMES = ("max_position_embeddings", "n_positions", "n_ctx")


class TokenModel(Protocol):
    """Tokens to unit vectors."""

    dimension: int
    max_tokens: int | None
    """Positions the model has; ``None`` where they are not limited."""
    padded: bool
    """Whether a batch costs texts x longest text rather than the tokens in it."""

    @property
    def path(self) -> str:
        """Which kernels compute the vectors, for the log."""

    def embed(self, tokens: Sequence[Ids], pooling: Pooling) -> Tensor:
        """Return unit vectors, float32 ``[n, D]`` on the model's device.

        Args:
            tokens: one batch, ascending in length.
            pooling: mean, cls or last.
        """


class PaddedModel:
    """Any transformers encoder or decoder, on batches padded to their longest text."""

    padded = True

    def __init__(self, files: EncoderFiles, dtype: torch.dtype, device: torch.device) -> None:
        """Args:
        files: a folder that ``AutoModel.from_pretrained`` reads; no code in it is run.
        dtype: float32 or bfloat16.
        device: CPU or CUDA.

        Raises:
            AssetError: transformers cannot load it.
        """
        from transformers import AutoModel

        try:
            model: Any = AutoModel.from_pretrained(
                str(files.folder), local_files_only=True, use_safetensors=True, dtype=dtype
            )
        except (OSError, ValueError, ImportError) as error:
            raise AssetError(f"cannot load encoder '{files.name}': {error}") from error
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        self._model = model.to(device).eval()
        self._device = device
        self._pad = model.config.pad_token_id or 0
        self.dimension = int(model.config.hidden_size)
        limits = [getattr(model.config, name, None) for name in _LENGTH_NAMES]
        self.max_tokens = next((int(limit) for limit in limits if limit), None)

    @property
    def path(self) -> str:
        """See :class:`TokenModel`."""
        return f"batches of like length, padded, {type(self._model).__name__}"

    def embed(self, tokens: Sequence[Ids], pooling: Pooling) -> Tensor:
        """See :class:`TokenModel`."""
        longest = len(tokens[-1])
        ids = torch.full((len(tokens), longest), self._pad, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(tokens):
            ids[row, : len(text)] = torch.from_numpy(text)
            mask[row, : len(text)] = 1
        ids, mask = ids.to(self._device), mask.to(self._device)
        states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        return pool_padded(states, mask, pooling)


def load_model(files: EncoderFiles, dtype: torch.dtype, device: torch.device) -> TokenModel:
    """Return the quickest model for these files.

    Raises:
        AssetError: the files are not a model.
    """
    shape = BertShape.read(files.folder)
    if shape is None:
        return PaddedModel(files, dtype, device)
    return PackedBert(files.read_weights(), shape, dtype, device)
