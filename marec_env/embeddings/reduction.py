"""Fewer dimensions, fitted on a catalog."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from marec_env.embeddings.config import EmbeddingConfig, ReductionConfig
from marec_env.errors import ConfigError, DataError

__all__ = ["Reduction", "fit_reduction"]

# Directions whose variance is below this share of the largest are noise of the eigensolver.
_RANK_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Reduction:
    """An affine map followed by scaling to unit length."""

    mean: Tensor
    """Float32 ``[D]``, taken off before the projection."""
    projection: Tensor
    """Float32 ``[D, d]``."""

    def apply(self, embeddings: Tensor) -> Tensor:
        """Return unit vectors.

        Args:
            embeddings: float32 ``[N, D]``.

        Returns:
            float32 ``[N, d]`` on the embeddings' device. Zeros stay zeros; so does a vector that
            is the mean itself, which has no direction.

        Raises:
            DataError: D differs from that of the fit.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.mean.shape[0]:
            raise DataError(
                f"embeddings of shape {list(embeddings.shape)} do not fit a reduction of "
                f"{self.mean.shape[0]} dimensions; fit it on the same encoder"
            )
        mean, projection = self.mean.to(embeddings.device), self.projection.to(embeddings.device)
        present = embeddings.any(dim=1, keepdim=True)
        reduced = (embeddings.float() - mean) @ projection
        return functional.normalize(torch.where(present, reduced, 0.0), dim=1)


def fit_reduction(config: EmbeddingConfig | ReductionConfig, embeddings: Tensor) -> Reduction:
    """Fit the configured reduction: the leading eigenvectors of the covariance, or none.

    The sign of each direction is fixed (its largest entry is positive), so the same embeddings
    give the same result on any machine up to rounding.

    Args:
        config: the section, or the whole embedding configuration.
        embeddings: float32 ``[N, D]``, finite; rows of zeros are left out.

    Raises:
        ConfigError: more dimensions are asked for than there are.
        DataError: no embeddings, or some that are not finite.
    """
    section = config.reduction if isinstance(config, EmbeddingConfig) else config
    if embeddings.ndim != 2 or embeddings.shape[0] == 0:
        raise DataError(f"cannot fit a reduction on embeddings of shape {list(embeddings.shape)}")
    if not bool(torch.isfinite(embeddings).all()):
        raise DataError("cannot fit a reduction: some embeddings are not finite")
    full = embeddings.shape[1]
    if section.method == "none":
        return Reduction(torch.zeros(full), torch.eye(full))
    if section.dimension > full:
        raise ConfigError(
            f"reduction.dimension is {section.dimension}, but the encoder gives {full} "
            f"dimensions; allowed: 1 to {full}, or method: none"
        )
    data = embeddings[embeddings.any(dim=1)].to("cpu", torch.float64)
    if data.shape[0] == 0:
        raise DataError("cannot fit a reduction: all embeddings are zeros")
    mean = data.mean(dim=0)
    centred = data - mean
    variances, vectors = torch.linalg.eigh(centred.T @ centred / data.shape[0])
    variances, vectors = variances.flip(0).clamp(min=0), vectors.flip(1)
    largest = vectors.abs().argmax(dim=0)
    vectors = vectors * torch.sign(vectors[largest, torch.arange(vectors.shape[1])])
    kept, basis = variances[: section.dimension], vectors[:, : section.dimension]
    basis = torch.where(kept > _RANK_TOLERANCE * float(variances[0]), basis, 0.0)
    return Reduction(mean.float(), basis.float().contiguous())
