"""How much a policy explores: its distributions made narrower or wider."""

from __future__ import annotations

import math
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from agents.learners.distributions import distribution_for

__all__ = ["rescaled"]


def rescaled(space: spaces.Space[Any], parameters: Tensor, factor: float) -> Tensor:
    """Return parameters whose distribution explores ``factor`` times as much.

    Box: standard deviations are multiplied. Discrete kinds: logits are divided (temperature).

    Args:
        space: the action space of one session.
        parameters: of the actor's distribution, ``[n, num_inputs]``.
        factor: > 0.
    """
    if isinstance(space, spaces.Box):
        mean, log_std = parameters.chunk(2, dim=-1)
        return torch.cat([mean, log_std + math.log(factor)], dim=-1)
    if isinstance(space, spaces.Tuple):
        sizes = [distribution_for(part).num_inputs for part in space]
        pieces = torch.split(parameters, sizes, dim=-1)
        return torch.cat([rescaled(p, x, factor) for p, x in zip(space, pieces, strict=True)], -1)
    return parameters / factor
