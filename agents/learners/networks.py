"""Policy and value networks in plain torch; they run without RLlib."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from agents.learners.config import NetworkConfig
from agents.learners.distributions import distribution_for

_POLICY_HEAD_GAIN = 0.01  # Yu et al. 2022, appendix: first policies are near uniform
_VARIANCE_FLOOR = 1e-8
_VALUE_BETA = 0.9  # weight of the past at each update, of which an iteration makes one
_VALUE_STD_FLOOR = 1e-3  # of the root mean square, so that the unit of reward does not matter
_CLAMP = 10.0  # standard deviations, as in stable-baselines3's VecNormalize
_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU}
_GAINS = {"tanh": 5.0 / 3.0, "relu": 2.0**0.5, "silu": 2.0**0.5}


class RunningNormaliser(nn.Module):
    """Normalise inputs ``[..., d]`` by the mean and variance of all inputs seen so far."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("shift", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.count: Tensor
        self.mean: Tensor
        self.squares: Tensor
        self.shift: Tensor
        self.scale: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        """Return ``(inputs - mean) / std``, clamped to ten standard deviations."""
        return ((inputs - self.shift) * self.scale).clamp(-_CLAMP, _CLAMP)

    @torch.no_grad()
    def update(self, inputs: Tensor) -> None:
        """Take in a batch ``[N, d]`` (Chan, Golub and LeVeque's merge of two samples)."""
        if not inputs.shape[0]:
            return
        batch = inputs.to(torch.float64)
        count, mean = float(batch.shape[0]), batch.mean(dim=0)
        squares = (batch - mean).square().sum(dim=0)
        total = self.count + count
        delta = mean - self.mean
        self.squares += squares + delta.square() * (self.count * count / total)
        self.mean += delta * (count / total)
        self.count.copy_(total)
        variance = self.squares / total
        self.shift.copy_(self.mean)
        # A feature that never varied carries no signal: leave it unscaled.
        self.scale.copy_(
            torch.where(
                variance > _VARIANCE_FLOOR, variance.clamp_min(_VARIANCE_FLOOR).rsqrt(), 1.0
            )
        )


class Trunk(nn.Module):
    """Input normaliser, hidden layers and GRU; features are ``[..., size]``."""

    def __init__(self, num_inputs: int, config: NetworkConfig, num_extra: int = 0) -> None:
        """Args:
        num_inputs: numbers of an observation or state, which are normalised.
        config: sizes.
        num_extra: further numbers (an agent's one-hot id), which are not.
        """
        super().__init__()
        self.normaliser = RunningNormaliser(num_inputs) if config.normalise_inputs else None
        layers: list[nn.Module] = []
        size = num_inputs + num_extra
        for units in config.hidden:
            layers += [_linear(size, units, config, _GAINS[config.activation])]
            layers += [_ACTIVATIONS[config.activation]()]
            size = units
        self.layers = nn.Sequential(*layers)
        self.cell = nn.GRUCell(size, config.recurrent_units) if config.recurrent_units else None
        if self.cell is not None:
            size = config.recurrent_units
            if config.initial_weights == "orthogonal":
                nn.init.orthogonal_(self.cell.weight_ih)
                nn.init.orthogonal_(self.cell.weight_hh)
                nn.init.zeros_(self.cell.bias_ih)
                nn.init.zeros_(self.cell.bias_hh)
        self.size = size
        self.num_inputs = num_inputs
        self.memory_size = config.recurrent_units
        """Numbers of the recurrent state; 0 for a network without one."""

    def normalise(self, inputs: Tensor) -> Tensor:
        """Return normalised inputs; the inputs themselves where normalisation is off."""
        return inputs if self.normaliser is None else self.normaliser(inputs)

    def forward(
        self, inputs: Tensor, memory: Tensor | None = None, extra: Tensor | None = None,
        starts: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Return the features of single steps, or of sequences, and the recurrent state after each.

        Args:
            inputs: ``[N, d]``, or ``[N, T, d]`` of sequences; normalised already.
            memory: ``[N, memory_size]``, the recurrent state before the (first) step.
            extra: ``[..., num_extra]``.
            starts: of sequences, bool ``[N, T]``: an episode starts there, and all is forgotten.
        """
        if extra is not None:
            inputs = torch.cat([inputs, extra], dim=-1)
        features: Tensor = self.layers(inputs)
        if self.cell is None:
            return features, None
        if starts is None:
            memory = self.cell(features, memory)
            return memory, memory
        assert memory is not None
        keep = (~starts).to(features.dtype).unsqueeze(-1)
        memories = []
        for t in range(features.shape[1]):
            memory = self.cell(features[:, t], memory * keep[:, t])
            memories.append(memory)
        stacked = torch.stack(memories, dim=1)
        return stacked, stacked


def _linear(inputs: int, outputs: int, config: NetworkConfig, gain: float = 1.0) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    if config.initial_weights == "orthogonal":
        nn.init.orthogonal_(layer.weight, gain)
        nn.init.zeros_(layer.bias)
    return layer


class _Network(nn.Module):
    """A trunk and a linear head."""

    def __init__(
        self, trunk: Trunk, outputs: int, config: NetworkConfig, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = _linear(trunk.size, outputs, config, gain)
        self.memory_size = trunk.memory_size
        """Numbers of the recurrent state; 0 for none."""


class Actor(_Network):
    """A policy: observation to the parameters of an action distribution.

    Standard deviations of Box actions are parameters of their own, the same in every state.
    """

    def __init__(
        self, observation_space: spaces.Box, action_space: spaces.Space[Any], config: NetworkConfig,
        *, squashed: bool = False, initial_log_std: float = -0.5, num_agents: int = 1,
    ) -> None:  # fmt: skip
        """Args:
        observation_space: flat Box of one session.
        action_space: of one session.
        config: sizes.
        squashed: whether Box actions are squashed rather than clipped.
        initial_log_std: of Box actions.
        num_agents: agents that share this actor and are told apart by a one-hot id; 1 for none.
        """
        distribution = distribution_for(action_space, squashed)
        slots = torch.tensor(distribution.log_std_slots)
        num_stds = int(slots.sum())
        num_ids = num_agents if num_agents > 1 else 0
        trunk = Trunk(int(observation_space.shape[0]), config, num_ids)
        super().__init__(trunk, len(slots) - num_stds, config, _POLICY_HEAD_GAIN)
        self.config, self.squashed, self.num_agents = config, squashed, num_agents
        self.distribution = distribution
        self.log_std = (
            nn.Parameter(torch.full((num_stds,), float(initial_log_std))) if num_stds else None
        )
        # Position of each distribution input in cat(head outputs, log_std).
        order = slots.to(torch.int64).argsort(stable=True).argsort()
        self._ordered = bool((order.diff() == 1).all())
        self.register_buffer("_order", order, persistent=False)
        self._order: Tensor

    def agent_id(self, index: int, shape: tuple[int, ...], device: torch.device) -> Tensor | None:
        """Return an agent's one-hot id ``[*shape, num_agents]``, or None where none is used."""
        if self.num_agents == 1:
            return None
        one_hot = torch.zeros(self.num_agents, device=device)
        one_hot[index] = 1.0
        return one_hot.expand(*shape, self.num_agents)

    def forward(
        self, observations: Tensor, memory: Tensor | None = None, index: int = 0
    ) -> tuple[Tensor, Tensor | None]:
        """Return distribution inputs ``[N, num_inputs]`` and the next recurrent state.

        Args:
            observations: ``[N, d]``.
            memory: ``[N, memory_size]``; None for an empty one.
            index: of the agent among those that share the actor.
        """
        agent_id = self.agent_id(index, observations.shape[:-1], observations.device)
        return self.decide(self.trunk.normalise(observations), memory, agent_id)

    def decide(
        self, normalised: Tensor, memory: Tensor | None = None, agent_id: Tensor | None = None,
        starts: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Return the same of normalised observations, or of sequences; see :class:`Trunk`."""
        features, memory = self.trunk(normalised, memory, agent_id, starts)
        outputs: Tensor = self.head(features)
        if self.log_std is not None:
            stds = self.log_std.expand(*outputs.shape[:-1], -1)
            outputs = torch.cat([outputs, stds], dim=-1)
            if not self._ordered:
                outputs = outputs.index_select(-1, self._order)
        return outputs, memory


class Critic(_Network):
    """A value function: state (or observation) to one value a head, in normalised units."""

    def __init__(self, num_inputs: int, config: NetworkConfig, num_heads: int = 1) -> None:
        super().__init__(Trunk(num_inputs, config), num_heads, config)

    def forward(
        self, inputs: Tensor, memory: Tensor | None = None, starts: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return values ``[..., heads]`` of normalised inputs and the recurrent states; see
        :class:`Trunk`.
        """
        features, memory = self.trunk(inputs, memory, None, starts)
        return self.head(features), memory

    @torch.no_grad()
    def rescale(self, factor: Tensor, offset: Tensor) -> None:
        """Give ``value * factor + offset`` from now on, ``[heads]`` each."""
        self.head.weight.mul_(factor.unsqueeze(-1))
        self.head.bias.mul_(factor).add_(offset)


class ValueNormaliser(nn.Module):
    """Debiased exponential averages of the targets' mean and variance, one pair a head.

    The critic outputs ``(value - mean) / std``; advantages need :meth:`denormalise`. When the
    averages move, the critic's last layer is to be rescaled so that its values stay (PopArt, van
    Hasselt et al., arXiv 1602.07714). Nothing depends on the unit of reward: before the first
    update, and while all targets were 0, values are 0.
    """

    def __init__(self, num_heads: int = 1) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_heads, dtype=torch.float64))
        self.register_buffer("variance", torch.zeros(num_heads, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(num_heads, dtype=torch.float64))
        self.mean: Tensor
        self.variance: Tensor
        self.weight: Tensor

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, ``[heads]`` each; 0 before the first update."""
        least = _VALUE_STD_FLOOR**2 * (self.variance + self.mean.square())
        std = torch.maximum(self.variance, least).sqrt()
        return self.mean.to(torch.float32), std.to(torch.float32)

    @torch.no_grad()
    def update(self, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Take in value targets, of all learners where several share a batch.

        Args:
            targets: ``[..., heads]``.
            weights: ``[..., heads]``, 0 for entries that do not count. A head without any
                counting entry keeps its averages.

        Returns:
            factor and offset, ``[heads]`` each: ``v * factor + offset`` is in the new normalised
            units what ``v`` was in the old ones.
        """
        old_mean, old_std = self.statistics()
        dims = tuple(range(targets.dim() - 1))
        counted = torch.where(weights > 0, targets, 0.0).to(torch.float64)
        sums = torch.stack(
            [
                weights.to(torch.float64).sum(dim=dims),
                counted.sum(dim=dims),
                counted.square().sum(dim=dims),
            ]
        )
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        total, first, second = sums
        batch_mean = first / total.clamp_min(1.0)
        batch_variance = (second / total.clamp_min(1.0) - batch_mean.square()).clamp_min(0.0)
        new = (1.0 - _VALUE_BETA) * (total > 0)
        self.weight.mul_(torch.where(total > 0, _VALUE_BETA, 1.0)).add_(new)
        share = new / self.weight.clamp_min(1.0 - _VALUE_BETA)
        step = batch_mean - self.mean
        self.variance.lerp_(batch_variance + (1.0 - share) * step.square(), share)
        self.mean.add_(share * step)
        mean, std = self.statistics()
        known = (old_std > 0) & (std > 0)
        factor = torch.where(known, old_std / std, 1.0)
        return factor, torch.where(known, (old_mean - mean) / std, 0.0)

    def forget(self) -> None:
        """Start anew, as for rewards in another unit."""
        for average in (self.mean, self.variance, self.weight):
            average.zero_()

    def normalise(self, values: Tensor) -> Tensor:
        """Return values ``[..., heads]`` in normalised units; 0 where nothing but 0 was seen."""
        mean, std = self.statistics()
        return torch.where(std == 0, 0.0, (values - mean) / torch.where(std == 0, 1.0, std))

    def denormalise(self, values: Tensor) -> Tensor:
        """Return normalised values ``[..., heads]`` in units of reward."""
        mean, std = self.statistics()
        return values * std + mean
