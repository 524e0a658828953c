"""Policy and value networks in plain torch; they run without RLlib."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from agents.learners.config import NetworkConfig
from agents.learners.distributions import (
    ActionDistribution,
    GaussianDistribution,
    TupleDistribution,
    distribution_for,
)

__all__ = ["Actor", "Critic", "RunningNormaliser", "Trunk", "ValueNormaliser"]

_POLICY_HEAD_GAIN = 0.01  # Yu et al. 2022, appendix: first policies are near uniform
_VARIANCE_FLOOR = 1e-8
_VALUE_BETA = 0.99999  # weight of the past at each update (Yu et al. 2022)
_VALUE_VARIANCE_FLOOR = 1e-2  # the same source
_DEBIAS_FLOOR = 1e-5
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
            layer = nn.Linear(size, units)
            nn.init.orthogonal_(layer.weight, _GAINS[config.activation])
            nn.init.zeros_(layer.bias)
            layers += [layer, _ACTIVATIONS[config.activation]()]
            size = units
        self.layers = nn.Sequential(*layers)
        self.cell = nn.GRUCell(size, config.recurrent_units) if config.recurrent_units else None
        if self.cell is not None:
            nn.init.orthogonal_(self.cell.weight_ih)
            nn.init.orthogonal_(self.cell.weight_hh)
            nn.init.zeros_(self.cell.bias_ih)
            nn.init.zeros_(self.cell.bias_hh)
            size = config.recurrent_units
        self.size = size
        self.num_inputs = num_inputs

    @property
    def memory_size(self) -> int:
        """Numbers of the recurrent state; 0 for a network without one."""
        return self.cell.hidden_size if self.cell is not None else 0

    def normalise(self, inputs: Tensor) -> Tensor:
        """Return normalised inputs; the inputs themselves where normalisation is off."""
        return inputs if self.normaliser is None else self.normaliser(inputs)

    def _features(self, inputs: Tensor, extra: Tensor | None) -> Tensor:
        if extra is not None:
            inputs = torch.cat([inputs, extra], dim=-1)
        features: Tensor = self.layers(inputs)
        return features

    def forward(
        self, inputs: Tensor, memory: Tensor | None = None, extra: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the features of one step and the recurrent state after it, ``[N, ...]``.

        Inputs are normalised already; see :meth:`normalise`.
        """
        features = self._features(inputs, extra)
        if self.cell is None:
            return features, None
        memory = self.cell(features, memory)
        return memory, memory

    def sequence(
        self, inputs: Tensor, starts: Tensor, memory: Tensor, extra: Tensor | None = None
    ) -> Tensor:
        """Return the features ``[N, T, size]`` of sequences, forgetting where an episode starts.

        Args:
            inputs: ``[N, T, d]``, normalised.
            starts: bool ``[N, T]``, whether an episode starts at that step.
            memory: ``[N, memory_size]``, the recurrent state before the first step.
            extra: ``[N, T, num_extra]``.
        """
        features = self._features(inputs, extra)
        if self.cell is None:
            return features
        keep = (~starts).to(features.dtype).unsqueeze(-1)
        outputs = []
        for t in range(features.shape[1]):
            memory = self.cell(features[:, t], memory * keep[:, t])
            outputs.append(memory)
        return torch.stack(outputs, dim=1)


def _log_std_slots(distribution: ActionDistribution) -> list[bool]:
    """Return, for each distribution input, whether it is the log of a standard deviation."""
    if isinstance(distribution, GaussianDistribution):
        return [False] * distribution.width + [True] * distribution.width
    if isinstance(distribution, TupleDistribution):
        return [slot for part in distribution._parts for slot in _log_std_slots(part)]
    return [False] * distribution.num_inputs


class Actor(nn.Module):
    """A policy: observation to the parameters of an action distribution.

    Standard deviations of Box actions are parameters of their own, the same in every state.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Space[Any],
        config: NetworkConfig,
        *,
        squashed: bool = False,
        initial_log_std: float = -0.5,
        num_agents: int = 1,
    ) -> None:
        """Args:
        observation_space: flat Box of one session.
        action_space: of one session.
        config: sizes.
        squashed: whether Box actions are squashed rather than clipped.
        initial_log_std: of Box actions.
        num_agents: agents that share this actor and are told apart by a one-hot id; 1 for none.
        """
        super().__init__()
        self.config = config
        self.squashed = squashed
        self.num_agents = num_agents
        self.distribution = distribution_for(action_space, squashed)
        num_ids = num_agents if num_agents > 1 else 0
        self.trunk = Trunk(int(observation_space.shape[0]), config, num_ids)
        slots = torch.tensor(_log_std_slots(self.distribution))
        self.head = nn.Linear(self.trunk.size, int((~slots).sum()))
        nn.init.orthogonal_(self.head.weight, _POLICY_HEAD_GAIN)
        nn.init.zeros_(self.head.bias)
        num_stds = int(slots.sum())
        self.log_std = (
            nn.Parameter(torch.full((num_stds,), float(initial_log_std))) if num_stds else None
        )
        # Position of each distribution input in cat(head outputs, log_std).
        order = torch.empty(len(slots), dtype=torch.int64)
        order[~slots] = torch.arange(len(slots) - num_stds)
        order[slots] = torch.arange(len(slots) - num_stds, len(slots))
        self._order = None if bool((order.diff() == 1).all()) else order

    @property
    def memory_size(self) -> int:
        """Numbers of the recurrent state; 0 for none."""
        return self.trunk.memory_size

    def agent_id(self, index: int, shape: tuple[int, ...], device: torch.device) -> Tensor | None:
        """Return an agent's one-hot id ``[*shape, num_agents]``, or None where none is used."""
        if self.num_agents == 1:
            return None
        one_hot = torch.zeros(self.num_agents, device=device)
        one_hot[index] = 1.0
        return one_hot.expand(*shape, self.num_agents)

    def _inputs(self, outputs: Tensor) -> Tensor:
        """Return distribution inputs from the head's outputs."""
        if self.log_std is not None:
            stds = self.log_std.expand(*outputs.shape[:-1], -1)
            outputs = torch.cat([outputs, stds], dim=-1)
            if self._order is not None:
                outputs = outputs.index_select(-1, self._order.to(outputs.device))
        return outputs

    def forward(
        self, observations: Tensor, memory: Tensor | None = None, agent_id: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return distribution inputs ``[N, num_inputs]`` and the next recurrent state."""
        features, memory = self.trunk(self.trunk.normalise(observations), memory, agent_id)
        return self._inputs(self.head(features)), memory

    def flat(self, normalised: Tensor, agent_id: Tensor | None = None) -> Tensor:
        """Return distribution inputs ``[N, num_inputs]`` of normalised observations."""
        features, _ = self.trunk(normalised, None, agent_id)
        return self._inputs(self.head(features))

    def sequence(
        self,
        normalised: Tensor,
        starts: Tensor,
        memory: Tensor,
        agent_id: Tensor | None = None,
    ) -> Tensor:
        """Return distribution inputs ``[N, T, num_inputs]`` of sequences; see :class:`Trunk`."""
        features = self.trunk.sequence(normalised, starts, memory, agent_id)
        return self._inputs(self.head(features))


class Critic(nn.Module):
    """A value function: state (or observation) to one value a head, in normalised units."""

    def __init__(self, num_inputs: int, config: NetworkConfig, num_heads: int = 1) -> None:
        super().__init__()
        self.trunk = Trunk(num_inputs, config)
        self.head = nn.Linear(self.trunk.size, num_heads)
        nn.init.orthogonal_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def memory_size(self) -> int:
        """Numbers of the recurrent state; 0 for none."""
        return self.trunk.memory_size

    def forward(self, inputs: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return values ``[N, heads]`` of normalised inputs and the next recurrent state."""
        features, memory = self.trunk(inputs, memory)
        return self.head(features), memory

    def sequence(self, inputs: Tensor, starts: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return values ``[N, T, heads]`` and recurrent states; inputs are normalised."""
        features = self.trunk.sequence(inputs, starts, memory)
        return self.head(features), features


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
        variance = (self.running_square / weight - mean.square()).clamp_min(_VALUE_VARIANCE_FLOOR)
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
        self.running_mean.mul_(_VALUE_BETA).add_(mean * (1.0 - _VALUE_BETA))
        self.running_square.mul_(_VALUE_BETA).add_(square * (1.0 - _VALUE_BETA))
        self.weight.mul_(_VALUE_BETA).add_(1.0 - _VALUE_BETA)

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
