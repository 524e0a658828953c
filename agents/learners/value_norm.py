"""Running normalisation of value targets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ValueNormaliser"]

_BETA = 0.99999  # weight of the past at each update (Yu et al. 2022)
_VARIANCE_FLOOR = 1e-2  # the same source
_DEBIAS_FLOOR = 1e-5


class ValueNormaliser(nn.Module):
    """Debiased exponential averages of the targets' mean and square, one pair a head.

    The critic outputs ``(value - mean) / std``; advantages need :meth:`denormalise`. As in the
    reference implementation of MAPPO, the critic's last layer is not rescaled when the averages
    move (which would be PopArt).
    """

    def __init__(self, num_heads: int = 1) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(num_heads))
        self.register_buffer("running_square", torch.zeros(num_heads))
        self.register_buffer("weight", torch.zeros(()))
        self.running_mean: Tensor
        self.running_square: Tensor
        self.weight: Tensor

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, ``[heads]`` each; 0 and 1 before the first update."""
        if float(self.weight) == 0.0:
            return torch.zeros_like(self.running_mean), torch.ones_like(self.running_mean)
        weight = self.weight.clamp_min(_DEBIAS_FLOOR)
        mean = self.running_mean / weight
        variance = (self.running_square / weight - mean.square()).clamp_min(_VARIANCE_FLOOR)
        return mean, variance.sqrt()

    @torch.no_grad()
    def update(self, targets: Tensor, weights: Tensor) -> None:
        """Take in value targets.

        Args:
            targets: ``[..., heads]``.
            weights: ``[..., heads]``, 0 for entries that do not count. A head without any
                counting entry keeps its averages.
        """
        dims = tuple(range(targets.dim() - 1))
        total = weights.sum(dim=dims)
        safe = total.clamp_min(1.0)
        mean = torch.where(total > 0, (targets * weights).sum(dim=dims) / safe, self._mean())
        square = (targets.square() * weights).sum(dim=dims) / safe
        square = torch.where(total > 0, square, self._square())
        self.running_mean.mul_(_BETA).add_(mean * (1.0 - _BETA))
        self.running_square.mul_(_BETA).add_(square * (1.0 - _BETA))
        self.weight.mul_(_BETA).add_(1.0 - _BETA)

    def _mean(self) -> Tensor:
        return self.running_mean / self.weight.clamp_min(_DEBIAS_FLOOR)

    def _square(self) -> Tensor:
        return self.running_square / self.weight.clamp_min(_DEBIAS_FLOOR)

    def normalise(self, values: Tensor) -> Tensor:
        """Return values ``[..., heads]`` in normalised units."""
        mean, std = self.statistics()
        return (values - mean) / std

    def denormalise(self, values: Tensor) -> Tensor:
        """Return normalised values ``[..., heads]`` in units of reward."""
        mean, std = self.statistics()
        return values * std + mean
