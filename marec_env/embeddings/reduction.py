"""Fewer dimensions, fitted on a catalog."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from marec_env.embeddings.config import EmbeddingConfig, ReductionConfig
from marec_env.embeddings.vectors import BLOCK, Vectors
from marec_env.errors import ConfigError, DataError

# Directions whose variance is below this share of the largest are noise of the eigensolver.
_RANK_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Reduction:
    """An affine map followed by scaling to unit length."""

    mean: Tensor
    """Float32 ``[D]``, taken off before the projection."""
    projection: Tensor
    """Float32 ``[D, d]``."""

    def apply(self, embeddings: Tensor | Vectors) -> Tensor:
        """Return unit vectors.

        Args:
            embeddings: float32 ``[N, D]``.

        Returns:
            float32 ``[N, d]`` on the embeddings' device. Zeros stay zeros; so does a vector that
            is the mean itself, which has no direction.

        Raises:
            DataError: D differs from that of the fit.
        """
        if len(embeddings.shape) != 2 or embeddings.shape[1] != self.mean.shape[0]:
            raise DataError(
                f"embeddings of shape {list(embeddings.shape)} do not fit a reduction of "
                f"{self.mean.shape[0]} dimensions; fit it on the same encoder"
            )
        mean, projection = self.mean.to(embeddings.device), self.projection.to(embeddings.device)
        blocks = []
        for part in embeddings.split(BLOCK):
            reduced = (part.float() - mean) @ projection
            present = part.any(dim=1, keepdim=True)
            blocks.append(functional.normalize(torch.where(present, reduced, 0.0), dim=1))
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def _present(embeddings: Tensor | Vectors) -> Iterator[Tensor]:
    """Yield the rows that are not zero, float64, some at a time."""
    for part in embeddings.split(BLOCK):
        yield part[part.any(dim=1)].to("cpu", torch.float64)


def fit_reduction(
    config: EmbeddingConfig | ReductionConfig, embeddings: Tensor | Vectors
) -> Reduction:
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
    if len(embeddings.shape) != 2 or embeddings.shape[0] == 0:
        raise DataError(f"cannot fit a reduction on embeddings of shape {list(embeddings.shape)}")
    if not all(bool(torch.isfinite(part).all()) for part in embeddings.split(BLOCK)):
        raise DataError("cannot fit a reduction: some embeddings are not finite")
    full = embeddings.shape[1]
    if section.method == "none":
        return Reduction(torch.zeros(full), torch.eye(full))
    if section.dimension > full:
        raise ConfigError(
            f"reduction.dimension is {section.dimension}, but the encoder gives {full} "
            f"dimensions; allowed: 1 to {full}, or method: none"
        )
    count, total = 0, torch.zeros(full, dtype=torch.float64)
    for data in _present(embeddings):
        count, total = count + len(data), total + data.sum(dim=0)
    if count == 0:
        raise DataError("cannot fit a reduction: all embeddings are zeros")
    mean = total / count
    scatter = torch.zeros(full, full, dtype=torch.float64)
    for data in _present(embeddings):
        data -= mean
        scatter += data.T @ data
    variances, vectors = torch.linalg.eigh(scatter / count)
    variances, vectors = variances.flip(0).clamp(min=0), vectors.flip(1)
    largest = vectors.abs().argmax(dim=0)
    vectors = vectors * torch.sign(vectors[largest, torch.arange(vectors.shape[1])])
    kept, basis = variances[: section.dimension], vectors[:, : section.dimension]
    basis = torch.where(kept > _RANK_TOLERANCE * float(variances[0]), basis, 0.0)
    return Reduction(mean.float(), basis.float().contiguous())
