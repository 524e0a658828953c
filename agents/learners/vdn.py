"""Value decomposition networks: the team's Q is the sum of its agents' Q values."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from agents.learners.collector import Collector, Rollout
from agents.learners.config import MAPPOConfig, NetworkConfig, SamplingConfig, VDNConfig
from agents.learners.distributions import LEAST_LOGIT, CategoricalDistribution
from agents.learners.engines import iteration_metrics
from agents.learners.networks import Actor
from agents.learners.team import TeamSpec
from marec_env.config import usable_device
from marec_env.errors import ConfigError, RunError
from marec_env.vector import VectorEnv

_SEED_STRIDE = 1_000_003  # a prime; keeps generators of different seeds and updates apart
_SHARPNESS = 1e6  # logits in units of this make the greedy action certain
_LEAST = torch.finfo(torch.float32).tiny
_NEVER = 1e-30  # a probability whose logarithm is finite, and which no draw reaches


class _EpsilonGreedy(CategoricalDistribution):
    """Of Q values: the best allowed sub-action, or any allowed one with probability ε.

    A MultiDiscrete component's Q is the sum over sub-actions of one table each.
    """

    epsilon = 0.0

    def _logits(self, inputs: Tensor, mask: Tensor | None) -> Tensor:
        q = super()._logits(inputs, mask)
        allowed = (q > LEAST_LOGIT).to(q.dtype)
        best = torch.nn.functional.one_hot(q.argmax(dim=-1), q.shape[-1])
        even = allowed / allowed.sum(dim=-1, keepdim=True)
        probability = (1.0 - self.epsilon) * best + self.epsilon * even
        return probability.clamp_min(_NEVER).log()

    def mode(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        return super()._logits(inputs, mask).argmax(dim=-1).to(torch.float32)


class _QNetwork(Actor):
    """Q of every sub-action, which acts ε-greedily."""

    distribution: _EpsilonGreedy

    def __init__(
        self, observation_space: spaces.Box, action_space: spaces.Space[Any], config: NetworkConfig
    ) -> None:
        super().__init__(observation_space, action_space, config)
        assert isinstance(action_space, spaces.Discrete | spaces.MultiDiscrete)
        self.distribution = _EpsilonGreedy(action_space)

    def values(self, observations: Tensor) -> Tensor:
        """Return Q of every sub-action, ``[N, num_inputs]``."""
        found: Tensor = self(observations)[0]
        return found


class VDNEngine:
    """ε-greedy sampling, a replay of env steps, double Q-learning on the sum of Q values."""

    def __init__(
        self,
        algorithm: VDNConfig,
        sampling: SamplingConfig,
        seed: int,
        env_factory: Callable[[int], VectorEnv],
    ) -> None:
        """Args:
        algorithm: settings.
        sampling: sessions and rollout length; everything runs in this process.
        seed: of networks, environment and draws.
        env_factory: number of sessions to environment.

        Raises:
            ConfigError: a component's actions are not discrete, or runners are remote.
        """
        if sampling.num_env_runners or sampling.num_learners:
            raise ConfigError(
                "algorithm vdn samples in its own process: set sampling.num_env_runners and"
                " sampling.num_learners to 0"
            )
        if sampling.torch_threads is not None:
            torch.set_num_threads(sampling.torch_threads)
        self._device = usable_device("sampling.device", sampling.device or "cpu")
        env = env_factory(sampling.num_sessions)
        for agent in env.agents:
            space = env.action_spaces[agent]
            if not isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
                raise ConfigError(
                    f"algorithm vdn needs discrete actions; '{agent}' has {space}; set"
                    " environment.pipeline.actions: discrete, or use mappo, ippo or happo"
                )
        self.team = TeamSpec.of(env)
        self._config, self._sampling, self._seed = algorithm, sampling, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._nets = {
                agent: _QNetwork(
                    self.team.observation_spaces[agent],
                    self.team.action_spaces[agent],
                    algorithm.network,
                ).to(self._device)
                for agent in self.team.agents
            }
        self._targets = copy.deepcopy(self._nets)
        params = [p for net in self._nets.values() for p in net.parameters()]
        self._optimizer = torch.optim.Adam(
            params, lr=algorithm.learning_rate, eps=algorithm.adam_epsilon, fused=True
        )
        self._params = params
        # ε is a number of the distribution's.
        self._collector = Collector(
            env, self.team, [self._nets], [seed], keep_next_observations=True, capture=False
        )
        self._replay: dict[str, Tensor] = {}
        self._cursor = 0
        self._updates = 0
        self._unit = torch.zeros((), device=self._device)  # of Q; 0 before any reward

    def _set_epsilon(self, env_steps: int) -> float:
        c = self._config
        done = min(1.0, env_steps / c.epsilon_env_steps)
        epsilon = c.epsilon_start + done * (c.epsilon_end - c.epsilon_start)
        for net in self._nets.values():
            net.distribution.epsilon = epsilon
        return epsilon

    def iterate(self, env_steps_done: int) -> dict[str, float]:
        """Sample with ε of the steps done, remember, and take gradient steps.

        Raises:
            RunError: Q values are not finite.
        """
        start = time.perf_counter()
        epsilon = self._set_epsilon(env_steps_done)
        rollout = self._collector.collect(self._sampling.rollout_length)
        self._remember(rollout)
        self._move_unit()
        sampled = time.perf_counter()
        learnt = torch.stack([self._update() for _ in range(self._config.updates)])
        losses, values = learnt.unbind(dim=-1)
        if not math.isfinite(sum(losses.tolist())):
            raise RunError(
                f"training diverged: Q values or rewards were not finite in the update at env step"
                f" {env_steps_done + rollout.env_steps:,}; try a smaller algorithm.learning_rate"
                f" ({self._config.learning_rate:g}) or rewards nearer to 1"
            )
        for agent, columns in rollout.agents.items():
            normaliser = self._nets[agent].trunk.normaliser
            if normaliser is not None:
                normaliser.update(columns["observations"][columns["active"]].to(self._device))
        numbers = {"q_loss": losses, "q_mean": values * self._unit}
        means = {name: sum(column.tolist()) / len(column) for name, column in numbers.items()}
        self._collector.sync()
        return iteration_metrics(rollout, start, sampled, epsilon=epsilon, **means)

    def _remember(self, rollout: Rollout) -> None:
        rewards = torch.stack([c["rewards"] for c in rollout.agents.values()])
        team = rewards.sum(dim=0) if self._config.reward == "team_sum" else rewards.mean(dim=0)
        terminated, ended = rollout.team["terminated"], rollout.team["ended"]
        rows = {"reward": team, "terminated": terminated}
        coming = self._collector.coming
        plain = True
        for agent, columns in rollout.agents.items():
            rows[f"{agent}/observation"] = columns["observations"]
            rows[f"{agent}/next"] = columns["next_observations"]
            rows[f"{agent}/action"] = columns["actions"]
            active, after = columns["active"], coming.active.get(agent)
            rows[f"{agent}/active"] = active
            rows[f"{agent}/next_active"] = _shifted(
                active, torch.ones_like(active[:, 0]) if after is None else after
            )
            plain &= "masks" not in columns and bool(active.all())
            if "masks" in columns:
                mask = self._nets[agent].distribution.flat_mask(coming.action_masks[agent])
                assert mask is not None
                rows[f"{agent}/next_mask"] = _shifted(columns["masks"], mask)
        flat = {key: row.flatten(0, 1).to(self._device) for key, row in rows.items()}
        if not plain:
            # Who may do what in the state in which an episode was cut off, nobody has said.
            known = (terminated | ~ended).flatten().to(self._device)
            flat = {key: row[known] for key, row in flat.items()}
        count, size = flat["reward"].shape[0], self._config.replay_size
        if not self._replay:
            self._replay = {
                k: torch.zeros((0, *v.shape[1:]), dtype=v.dtype, device=self._device)
                for k, v in flat.items()
            }
        before = self._replay["reward"].shape[0]
        for key, new in flat.items():
            # A mask may come later than all else; until then everything was allowed.
            old = self._replay.setdefault(key, new.new_ones((before, *new.shape[1:])))
            if old.shape[0] < size:
                self._replay[key] = torch.cat([old, new])[-size:]
            else:
                places = (self._cursor + torch.arange(count, device=self._device)) % size
                old[places] = new
        self._cursor = (self._cursor + count) % size

    def _replay_unit(self) -> Tensor:
        """Return the root mean square of the rewards in the replay, the unit in which Q counts."""
        rewards = self._replay.get("reward", torch.zeros(1, device=self._device))
        return rewards.square().mean().sqrt()

    @torch.no_grad()
    def _move_unit(self) -> None:
        """Count in the replay's present unit, and leave every Q what it is in units of reward."""
        old, self._unit = self._unit, self._replay_unit()
        known = (old > 0) & (self._unit > 0)
        factor = torch.where(known, old / self._unit.clamp_min(_LEAST), 1.0)
        for net in [*self._nets.values(), *self._targets.values()]:
            net.head.weight.mul_(factor)
            net.head.bias.mul_(factor)

    def _update(self) -> Tensor:
        """Take a gradient step and return loss and mean Q, in units of Q."""
        generator = torch.Generator().manual_seed(self._seed * _SEED_STRIDE + self._updates)
        self._updates += 1
        stored = self._replay["reward"].shape[0]
        rows = torch.randint(stored, (self._config.minibatch_size,), generator=generator)
        rows = rows.to(self._device)
        data = {key: column[rows] for key, column in self._replay.items()}
        q = torch.zeros(len(rows), device=rows.device)
        future = torch.zeros_like(q)
        for agent, net in self._nets.items():
            distribution = net.distribution
            active = data[f"{agent}/active"].to(torch.float32)
            values = net.values(data[f"{agent}/observation"])
            q = q + active * distribution.sum_chosen(values, data[f"{agent}/action"])
            with torch.no_grad():
                # Double Q-learning: the online network chooses, the target network judges.
                after = data[f"{agent}/next"]
                best = distribution.mode(net.values(after), data.get(f"{agent}/next_mask"))
                judged = distribution.sum_chosen(self._targets[agent].values(after), best)
                future = future + data[f"{agent}/next_active"].to(torch.float32) * judged
        going = (~data["terminated"]).to(torch.float32)
        reward = data["reward"] / self._unit.clamp_min(_LEAST)
        target = reward + self._config.gamma * going * future
        loss = torch.nn.functional.huber_loss(q, target)
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._params, self._config.max_gradient_norm)
        self._optimizer.step()
        with torch.no_grad():
            for agent, net in self._nets.items():
                pairs = zip(
                    self._targets[agent].state_dict().values(),
                    net.state_dict().values(),
                    strict=True,
                )
                for slow, fast in pairs:
                    slow.lerp_(fast, self._config.target_rate)
        return torch.stack([loss.detach(), q.detach().mean()])

    def actors(self) -> dict[str, Actor]:
        """Return greedy actors whose logits are the Q values, sharpened."""
        config = MAPPOConfig(actor=self._config.network)
        found = {}
        for agent, net in self._nets.items():
            actor = self.team.build_actor(config, agent)
            state = {k: v.clone() for k, v in net.state_dict().items()}
            for key in ("head.weight", "head.bias"):
                state[key] = state[key] * _SHARPNESS
            actor.load_state_dict(state)
            found[agent] = actor
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return networks, optimiser, replay and collector state."""
        return {
            "networks": {a: n.state_dict() for a, n in self._nets.items()},
            "targets": {a: n.state_dict() for a, n in self._targets.items()},
            "optimizer": self._optimizer.state_dict(),
            "replay": dict(self._replay),
            "cursor": self._cursor,
            "updates": self._updates,
            "collector": self._collector.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self.load_networks(state)
        self._optimizer.load_state_dict(state["optimizer"])
        self._replay = {k: v.to(self._device).clone() for k, v in state["replay"].items()}
        self._cursor, self._updates = int(state["cursor"]), int(state["updates"])
        self._unit = self._replay_unit()
        self._collector.load_state_dict(state["collector"])

    def load_networks(self, state: Mapping[str, Any]) -> None:
        """Take over the networks of a state and their targets; in which unit, rewards will say."""
        for agent in self.team.agents:
            self._nets[agent].load_state_dict(state["networks"][agent])
            self._targets[agent].load_state_dict(state["targets"][agent])

    def close(self) -> None:
        """Close the environment."""
        self._collector.env.close()


def _shifted(column: Tensor, last: Tensor) -> Tensor:
    """Return a column ``[B, T, ...]`` one step later, ending with ``last`` ``[B, ...]``."""
    return torch.cat([column[:, 1:], last.unsqueeze(1)], dim=1)
