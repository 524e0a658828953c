"""Joint action distributions over Box, Discrete, MultiDiscrete and Tuple spaces.

An agent's action is kept flat, float32 ``[..., width]`` (integers below 2^24 are exact), so that a
batch of any space is one tensor; :meth:`ActionDistribution.to_env` gives the environment's form.
Sub-actions are independent given the observation, hence log-probabilities and entropies add up and
the probability ratio of PPO is that of the joint action.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from marec_env.errors import ConfigError
from marec_env.vector import Action

_MASKED_LOGIT = -1e9  # finite, so that gradients of masked logits are zero rather than NaN
LEAST_LOGIT = _MASKED_LOGIT / 2.0
"""Logits of allowed sub-actions lie above."""
_LOG_SQRT_TWO_PI = 0.5 * math.log(2.0 * math.pi)
# Nodes and weights of five-point Gauss-Hermite quadrature for a standard normal variable.
_NODES = (-2.8569700138728056, -1.355626179974266, 0.0, 1.355626179974266, 2.8569700138728056)
_WEIGHTS = (
    0.01125741132772071,
    0.2220759220056126,
    0.5333333333333333,
    0.2220759220056126,
    0.01125741132772071,
)


class ActionDistribution(nn.Module, ABC):
    """A family of distributions over one space; parameters come as ``inputs[..., num_inputs]``.

    A module without parameters, so that its constants are where the actor's weights are.
    """

    log_std_slots: list[bool]
    """For each input, whether it is the logarithm of a standard deviation."""
    width: int
    """Numbers of a flat action."""
    num_uniforms: int
    """Uniform draws that one sample consumes."""
    mask_width: int = 0
    """Booleans of a flat action mask; 0 where the space has no discrete part."""

    @property
    def num_inputs(self) -> int:
        """Numbers that parametrise one distribution."""
        return len(self.log_std_slots)

    def _constants(self, **tensors: Tensor) -> None:
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor, persistent=False)

    @abstractmethod
    def sample(self, inputs: Tensor, uniforms: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return flat actions ``[..., width]`` from ``uniforms[..., num_uniforms]`` in (0, 1)."""

    @abstractmethod
    def mode(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the most probable flat actions ``[..., width]``."""

    @abstractmethod
    def evaluate(
        self, inputs: Tensor, actions: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return joint log-probabilities of flat actions and joint entropies, ``[...]`` each."""

    @abstractmethod
    def expected(self, inputs: Tensor) -> Tensor:
        """Return each sub-action's mean ``[..., width]``: of a Box before clipping or squashing, of
        discrete parts ``sum_j j p_j``.
        """

    @abstractmethod
    def rescaled(self, inputs: Tensor, factor: float) -> Tensor:
        """Return inputs that explore ``factor`` > 0 times as much: of a Box standard deviations are
        multiplied, of discrete parts logits are divided (temperature).
        """

    @abstractmethod
    def to_env(self, actions: Tensor) -> Action:
        """Return the environment's form of flat actions ``[B, width]``."""

    @abstractmethod
    def from_env(self, actions: Action) -> Tensor:
        """Return the flat form ``[B, width]`` of the environment's actions."""

    def flat_mask(self, mask: Any) -> Tensor | None:
        """Return the flat form bool ``[B, mask_width]`` of an environment's action mask."""
        if mask is None or not self.mask_width:
            return None
        return torch.cat(list(mask), dim=-1) if isinstance(mask, tuple | list) else mask


def _softmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and probabilities over the last dimension, which comes first.

    Over the few levels of a sub-action torch's kernels are several times quicker with the levels
    outermost in memory; torch.log_softmax along them is slower still.

    Args:
        logits: ``[..., levels]``.

    Returns:
        ``[levels, ...]`` each.
    """
    log_p = logits.movedim(-1, 0).contiguous()
    log_p = log_p - log_p.amax(dim=0)
    p = log_p.exp()
    total = p.sum(dim=0)
    return log_p.sub_(total.log()), p.div_(total)


class _JointCategorical(torch.autograd.Function):
    """Log-probability of chosen sub-actions and joint entropy, with their derivatives written out.

    With p the probabilities of a sub-action and H its entropy, the derivatives by its logits are
    ``onehot(chosen) - p`` and ``-p (log p + H)``.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Args:
        ctx: of autograd.
        logits: ``[..., width, widest]``.
        chosen: int64 ``[..., width]``.

        Returns:
            ``[...]`` each.
        """
        log_p, p = _softmax(logits)
        entropy = -(p * log_p).sum(dim=0)
        ctx.save_for_backward(log_p, p, entropy, chosen)
        of_chosen = log_p.gather(0, chosen.unsqueeze(0)).squeeze(0)
        return of_chosen.sum(dim=-1), entropy.sum(dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_log_p: Tensor, of_entropy: Tensor) -> tuple[Tensor, None]:
        """Return the gradient by the logits."""
        log_p, p, entropy, chosen = ctx.saved_tensors
        by_log_p, by_entropy = of_log_p.unsqueeze(-1), of_entropy.unsqueeze(-1)
        gradient = (log_p + entropy).mul_(by_entropy).add_(by_log_p).mul_(p).neg_()
        by_chosen = by_log_p.expand(chosen.shape).unsqueeze(0).contiguous()
        return gradient.scatter_add_(0, chosen.unsqueeze(0), by_chosen).movedim(0, -1), None


class CategoricalDistribution(ActionDistribution):
    """Independent categorical sub-actions, of Discrete (one) and MultiDiscrete."""

    def __init__(self, space: spaces.Discrete[Any] | spaces.MultiDiscrete) -> None:
        super().__init__()
        sizes = [space.n] if isinstance(space, spaces.Discrete) else space.nvec.reshape(-1)
        self._shape: tuple[int, ...] = tuple(space.shape or ())
        self._sizes: list[int] = [int(n) for n in sizes]
        self.mask_width = sum(self._sizes)
        self.log_std_slots = [False] * self.mask_width
        self.width = self.num_uniforms = len(self._sizes)
        self._widest = max(self._sizes)
        self._equal = min(self._sizes) == self._widest
        # Where each logit lies in the padded table [width, widest].
        slots = [row * self._widest + j for row, n in enumerate(self._sizes) for j in range(n)]
        start = torch.as_tensor(space.start, dtype=torch.int64).reshape(-1)
        self._constants(_slots=torch.tensor(slots), _start=start)
        self._slots: Tensor
        self._start: Tensor

    def _logits(self, inputs: Tensor, mask: Tensor | None) -> Tensor:
        """Return logits ``[..., width, widest]``; padding and masked ones are tiny."""
        if mask is not None:
            inputs = torch.where(mask, inputs, _MASKED_LOGIT)
        return self._table(inputs)

    def sample(self, inputs: Tensor, uniforms: Tensor, mask: Tensor | None = None) -> Tensor:
        """Invert the cumulative distribution at the uniform draws."""
        cumulative = _softmax(self._logits(inputs, mask))[1].cumsum(dim=0)
        # The comparison with the last sum keeps rounding from choosing past the last allowed one.
        return (cumulative <= uniforms * cumulative[-1]).sum(dim=0).to(torch.float32)

    def mode(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the largest logits' places."""
        return self._logits(inputs, mask).argmax(dim=-1).to(torch.float32)

    def evaluate(
        self, inputs: Tensor, actions: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`ActionDistribution.evaluate`."""
        log_p, entropy = _JointCategorical.apply(  # type: ignore[no-untyped-call]
            self._logits(inputs, mask), actions.to(torch.int64)
        )
        return log_p, entropy

    def _table(self, inputs: Tensor) -> Tensor:
        """Return per-sub-action values ``[..., width, widest]``, padded with tiny ones."""
        if not self._equal:
            table = inputs.new_full((*inputs.shape[:-1], self.width * self._widest), _MASKED_LOGIT)
            inputs = table.index_copy(-1, self._slots, inputs)
        return inputs.view(*inputs.shape[:-1], self.width, self._widest)

    def sum_chosen(self, values: Tensor, actions: Tensor) -> Tensor:
        """Return the sum of the chosen sub-actions' values, ``[...]``.

        Args:
            values: ``[..., num_inputs]``.
            actions: flat, ``[..., width]``.
        """
        chosen = self._table(values).gather(-1, actions.to(torch.int64).unsqueeze(-1))
        return chosen.squeeze(-1).sum(dim=-1)

    def one_hot(self, actions: Tensor) -> Tensor:
        """Return ``[..., num_inputs]`` with a one at each chosen sub-action."""
        table = torch.nn.functional.one_hot(actions.to(torch.int64), self._widest)
        flat = table.flatten(-2).to(torch.float32)
        return flat if self._equal else flat.index_select(-1, self._slots)

    def expected(self, inputs: Tensor) -> Tensor:
        """See :meth:`ActionDistribution.expected`."""
        tables = torch.split(inputs, self._sizes, dim=-1)
        p = [torch.softmax(table, dim=-1) for table in tables]
        choices = torch.arange(self._widest, dtype=inputs.dtype, device=inputs.device)
        return torch.stack([of @ choices[: of.shape[-1]] for of in p], dim=-1)

    def rescaled(self, inputs: Tensor, factor: float) -> Tensor:
        """See :meth:`ActionDistribution.rescaled`."""
        return inputs / factor

    def to_env(self, actions: Tensor) -> Action:
        """Return choices as the space counts them."""
        return (actions.to(torch.int64) + self._start).view((-1, *self._shape))

    def from_env(self, actions: Action) -> Tensor:
        """Return choices counted from 0."""
        assert isinstance(actions, Tensor)
        return (actions.reshape(-1, self.width) - self._start).to(torch.float32)


class _GaussianDistribution(ActionDistribution):
    """A diagonal Gaussian over a Box, in units in which finite bounds are -1 and 1.

    Flat actions are the Gaussian's own draws; the environment gets them clipped to the bounds, or
    squashed into them by tanh. The density of a squashed action differs from the Gaussian's by a
    factor of the draw alone, which cancels in a probability ratio; log-probabilities and entropies
    include it. Inputs are the means, then the logarithms of the standard deviations.
    """

    def __init__(self, space: spaces.Box, squashed: bool) -> None:
        super().__init__()
        low = torch.as_tensor(space.low, dtype=torch.float32).reshape(-1)
        high = torch.as_tensor(space.high, dtype=torch.float32).reshape(-1)
        bounded = torch.isfinite(low) & torch.isfinite(high)
        if squashed and not bool(bounded.all()):
            raise ConfigError("box_distribution 'squashed' needs finite bounds; choose 'clipped'")
        self._shape = space.shape
        self._constants(
            _low=low,
            _high=high,
            _centre=torch.where(bounded, (low + high) / 2, 0.0),
            _scale=torch.where(bounded, (high - low) / 2, 1.0),
        )
        self._low: Tensor
        self._high: Tensor
        self._centre: Tensor
        self._scale: Tensor
        self._squashed = squashed
        self.width = self.num_uniforms = int(low.numel())
        self.log_std_slots = [False] * self.width + [True] * self.width

    def _log_slope(self, draws: Tensor) -> Tensor:
        """Return log d tanh(u) / du, as log 4 - 2 (softplus(2u) - u), stable for any u."""
        return math.log(4.0) - 2.0 * (torch.nn.functional.softplus(2.0 * draws) - draws)

    def sample(self, inputs: Tensor, uniforms: Tensor, mask: Tensor | None = None) -> Tensor:
        mean, log_std = inputs.chunk(2, dim=-1)
        noise = math.sqrt(2.0) * torch.erfinv(2.0 * uniforms - 1.0)
        return mean + log_std.exp() * noise

    def mode(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        return inputs[..., : self.width]

    def evaluate(
        self, inputs: Tensor, actions: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        mean, log_std = inputs.chunk(2, dim=-1)
        z = (actions - mean) * torch.exp(-log_std)
        log_p = -0.5 * z.square() - log_std - _LOG_SQRT_TWO_PI
        entropy = 0.5 + _LOG_SQRT_TWO_PI + log_std
        if self._squashed:
            log_p = log_p - self._log_slope(actions)
            std = log_std.exp()
            for node, weight in zip(_NODES, _WEIGHTS, strict=True):
                entropy = entropy + weight * self._log_slope(mean + std * node)
        return log_p.sum(dim=-1), entropy.sum(dim=-1)

    def expected(self, inputs: Tensor) -> Tensor:
        return self.mode(inputs)

    def rescaled(self, inputs: Tensor, factor: float) -> Tensor:
        mean, log_std = inputs.chunk(2, dim=-1)
        return torch.cat([mean, log_std + math.log(factor)], dim=-1)

    def to_env(self, actions: Tensor) -> Action:
        unit = torch.tanh(actions) if self._squashed else actions
        inside = torch.clamp(self._centre + self._scale * unit, self._low, self._high)
        return inside.view(-1, *self._shape)

    def from_env(self, actions: Action) -> Tensor:
        assert isinstance(actions, Tensor)
        unit = (actions.reshape(-1, self.width) - self._centre) / self._scale
        # Bounds squash to infinite draws; the margin keeps them finite.
        return torch.atanh(unit.clamp(-1 + 1e-4, 1 - 1e-4)) if self._squashed else unit


class _TupleDistribution(ActionDistribution):
    """Independent parts of a Tuple space: an action with a message, for instance."""

    def __init__(self, parts: Sequence[ActionDistribution]) -> None:
        super().__init__()
        self._listed = nn.ModuleList(parts)  # moves them, too
        self._parts = tuple(parts)
        self.log_std_slots = [slot for part in parts for slot in part.log_std_slots]
        for size in ("width", "num_uniforms", "mask_width"):
            setattr(self, size, sum(getattr(part, size) for part in parts))

    def _each(self, mask: Tensor | None = None, **columns: Tensor) -> Iterator[tuple[Any, ...]]:
        """Yield each part with its piece of the columns, then of the mask (None for none)."""
        first = dict.fromkeys([*columns, "mask_width"], 0)
        for part in self._parts:
            pieces = []
            for size, column in {**columns, "mask_width": mask}.items():
                last = first[size] + getattr(part, size)
                piece = None if column is None else column[..., first[size] : last]
                pieces.append(None if piece is None or not piece.shape[-1] else piece)
                first[size] = last
            yield part, *pieces

    def sample(self, inputs: Tensor, uniforms: Tensor, mask: Tensor | None = None) -> Tensor:
        each = self._each(mask, num_inputs=inputs, num_uniforms=uniforms)
        return torch.cat([part.sample(x, u, m) for part, x, u, m in each], dim=-1)

    def mode(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        return torch.cat([p.mode(x, m) for p, x, m in self._each(mask, num_inputs=inputs)], dim=-1)

    def evaluate(
        self, inputs: Tensor, actions: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        each = self._each(mask, num_inputs=inputs, width=actions)
        log_p, entropy = zip(*[part.evaluate(x, a, m) for part, x, a, m in each], strict=True)
        return torch.stack(log_p).sum(dim=0), torch.stack(entropy).sum(dim=0)

    def expected(self, inputs: Tensor) -> Tensor:
        return torch.cat([p.expected(x) for p, x, _ in self._each(num_inputs=inputs)], dim=-1)

    def rescaled(self, inputs: Tensor, factor: float) -> Tensor:
        each = self._each(num_inputs=inputs)
        return torch.cat([part.rescaled(x, factor) for part, x, _ in each], dim=-1)

    def to_env(self, actions: Tensor) -> Action:
        return tuple(part.to_env(piece) for part, piece, _ in self._each(width=actions))

    def from_env(self, actions: Action) -> Tensor:
        pairs = zip(self._parts, actions, strict=True)
        return torch.cat([part.from_env(piece) for part, piece in pairs], dim=-1)

    def flat_mask(self, mask: Any) -> Tensor | None:
        if not self.mask_width or mask is None or isinstance(mask, Tensor):
            return mask if self.mask_width else None
        flat = (part.flat_mask(m) for part, m in zip(self._parts, mask, strict=True))
        return torch.cat([one for one in flat if one is not None], dim=-1)


def distribution_for(space: spaces.Space[Any], squashed: bool = False) -> ActionDistribution:
    """Return the distribution family of a space.

    Args:
        space: Box, Discrete, MultiDiscrete, MultiBinary or a flat Tuple of them.
        squashed: whether Box actions are squashed by tanh rather than clipped.

    Raises:
        ConfigError: the space is of another kind, or squashed though unbounded.
    """
    if isinstance(space, spaces.Box):
        return _GaussianDistribution(space, squashed)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return CategoricalDistribution(space)
    if isinstance(space, spaces.MultiBinary):
        return CategoricalDistribution(spaces.MultiDiscrete(np.full(space.shape, 2)))
    if isinstance(space, spaces.Tuple) and not any(isinstance(s, spaces.Tuple) for s in space):
        return _TupleDistribution([distribution_for(part, squashed) for part in space])
    raise ConfigError(
        f"action space {space} is not supported (allowed: Box, Discrete, MultiDiscrete,"
        " MultiBinary, and a Tuple of these)"
    )
