"""Images as a second modality, behind the same interface as texts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from marec_env.embeddings.assets import EncoderFiles, locate
from marec_env.embeddings.config import EmbeddingConfig
from marec_env.embeddings.encoder import OnBatch, resolve_device, resolve_precision
from marec_env.errors import AssetError, DataError

__all__ = ["ImageEncoder"]

_LOG = logging.getLogger(__name__)
_BATCH = 32  # images at a time; a ViT-B/16 makes 197 tokens of each
# Values of a preprocessor_config.json that says nothing: those of transformers' ViT.
_DEFAULT_SIDE = 224
_DEFAULT_MEAN = (0.5, 0.5, 0.5)
_DEFAULT_STD = (0.5, 0.5, 0.5)
_GREY_LEVELS = 255.0


class ImageEncoder:
    """A transformers vision model (ViT or a convolutional network) from a local folder."""

    def __init__(self, config: EmbeddingConfig, device: str | torch.device = "auto") -> None:
        """Load the weights.

        Pooling ``cls`` takes a transformer's first token, ``mean`` the mean over its tokens or over
        the places of a convolutional network's last map.

        Raises:
            AssetError: weights are missing, pillow is not installed, or transformers cannot load
                the folder.
        """
        try:
            import PIL.Image  # noqa: F401
        except ImportError as error:
            raise AssetError("images need pillow: pip install 'marec[images]'") from error
        files = locate(config)
        files.verify()
        self._device = resolve_device(device)
        self._dtype = resolve_precision(config, self._device)
        self._pooling = config.pooling
        self._model: Any = files.load_model(self._dtype).to(self._device)
        self._shape = _Preprocessing(files)
        self.dimension = self._embed(torch.zeros(1, 3, self._shape.side, self._shape.side)).shape[1]
        _LOG.info("image encoder '%s' on %s in %s", files.name, self._device, self._dtype)

    def encode(self, inputs: Sequence[str], on_batch: OnBatch | None = None) -> Tensor:
        """Return unit vectors, float32 ``[N, D]``, of image files, in order."""
        out = torch.empty(len(inputs), self.dimension)
        for start in range(0, len(inputs), _BATCH):
            chosen = inputs[start : start + _BATCH]
            pixels = torch.stack([self._shape.read(path) for path in chosen])
            out[start : start + _BATCH] = self._embed(pixels)
            if on_batch is not None:
                on_batch(len(chosen))
        return out

    @torch.inference_mode()
    def _embed(self, pixels: Tensor) -> Tensor:
        states = self._model(pixel_values=pixels.to(self._device, self._dtype)).last_hidden_state
        if states.ndim == 4:  # channels and two axes of places
            states = states.flatten(2).transpose(1, 2)
        states = states.float()
        pooled = states[:, 0] if self._pooling == "cls" else states.mean(dim=1)
        return functional.normalize(pooled, dim=1).cpu()


class _Preprocessing:
    """Size and scale of the pixels, as in a folder's ``preprocessor_config.json``."""

    def __init__(self, files: EncoderFiles) -> None:
        values = files.settings("preprocessor_config.json")
        size = values.get("crop_size") or values.get("size") or _DEFAULT_SIDE
        try:
            if isinstance(size, dict):
                size = size.get("height") or size.get("shortest_edge") or _DEFAULT_SIDE
            self.side = int(size)
            self._mean = torch.tensor(values.get("image_mean", _DEFAULT_MEAN)).view(3, 1, 1)
            self._std = torch.tensor(values.get("image_std", _DEFAULT_STD)).view(3, 1, 1)
        except (TypeError, ValueError, RuntimeError) as error:
            path = files.folder / "preprocessor_config.json"
            raise AssetError(f"{path} does not describe pixels: {error}") from error

    def read(self, path: str) -> Tensor:
        """Return pixels, float32 ``[3, side, side]``.

        Raises:
            DataError: the file is missing or is not an image.
        """
        from PIL import Image

        try:
            with Image.open(path) as image:
                resized = image.convert("RGB").resize(
                    (self.side, self.side), Image.Resampling.BICUBIC
                )
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"image '{path}' cannot be read: {error}") from error
        levels = torch.from_numpy(np.array(resized, dtype=np.float32)).permute(2, 0, 1)
        return (levels / _GREY_LEVELS - self._mean) / self._std
