"""Value decomposition networks: the team's Q is the sum of its agents' Q values."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from agents.learners.collector import Collector, Rollout
from agents.learners.config import MAPPOConfig, SamplingConfig, VDNConfig
from agents.learners.distributions import CategoricalDistribution
from agents.learners.networks import Actor
from agents.learners.rollout_batch import RolloutBatch
from agents.learners.team import TeamSpec
from marec_env.errors import ConfigError
from marec_env.vector import VectorEnv

__all__ = ["VDNEngine"]

_SEED_STRIDE = 1_000_003  # a prime; keeps generators of different seeds and updates apart
_SHARPNESS = 1e6  # logits in units of this make the greedy action certain


class _GreedyActor(Actor):
    """A Q network that acts as an actor: greedy, or uniform with probability ε.

    A MultiDiscrete component's Q is the sum over sub-actions of one table each.
    """

    def attach_epsilon(self) -> None:
        """Add ε to what is saved with the network."""
        self.register_buffer("epsilon", torch.zeros(()))

    def values(self, observations: Tensor) -> Tensor:
        """Return Q of every sub-action, ``[N, num_inputs]``."""
        return self.flat(self.trunk.normalise(observations))

    def forward(
        self, observations: Tensor, memory: Tensor | None = None, agent_id: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits of the ε-greedy distribution."""
        distribution = self.distribution
        assert isinstance(distribution, CategoricalDistribution)
        q = self.values(observations)
        best = distribution.one_hot(distribution.mode(q))
        epsilon = self.epsilon
        assert isinstance(epsilon, Tensor)
        probability = (1.0 - epsilon) * best + epsilon * distribution.uniform()
        return probability.clamp_min(1e-30).log(), memory


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
        env = env_factory(sampling.num_sessions)
        for agent in env.agents:
            space = env.action_spaces[agent]
            if not isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
                raise ConfigError(
                    f"algorithm vdn needs discrete actions; '{agent}' has {space}."
                    " Use mappo, ippo or happo"
                )
        self.team = TeamSpec.of(env)
        self._config, self._sampling, self._seed = algorithm, sampling, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._nets = {agent: self._network(agent) for agent in self.team.agents}
        self._targets = copy.deepcopy(self._nets)
        params = [p for net in self._nets.values() for p in net.parameters()]
        self._optimizer = torch.optim.Adam(
            params, lr=algorithm.learning_rate, eps=algorithm.adam_epsilon, fused=True
        )
        self._params = params
        self._collector = Collector(env, self.team, self._nets, seed, keep_next_observations=True)
        self._replay: dict[str, Tensor] = {}
        self._cursor = 0
        self._updates = 0

    def _network(self, agent: str) -> _GreedyActor:
        net = _GreedyActor(
            self.team.observation_spaces[agent],
            self.team.action_spaces[agent],
            self._config.network.model_copy(update={"recurrent_units": 0}),
        )
        net.attach_epsilon()
        return net

    def _set_epsilon(self, env_steps: int) -> float:
        c = self._config
        done = min(1.0, env_steps / c.epsilon_env_steps)
        epsilon = c.epsilon_start + done * (c.epsilon_end - c.epsilon_start)
        for net in self._nets.values():
            net.epsilon.fill_(epsilon)  # type: ignore[operator]
        return epsilon

    def iterate(self, env_steps_done: int) -> dict[str, float]:
        """Sample with ε of the steps done, remember, and take gradient steps."""
        start = time.perf_counter()
        epsilon = self._set_epsilon(env_steps_done)
        rollout = self._collector.collect(self._sampling.rollout_length)
        self._remember(rollout)
        sampled = time.perf_counter()
        losses, values = [], []
        for _ in range(self._config.updates):
            loss, value = self._update()
            losses.append(loss)
            values.append(value)
        for agent, columns in rollout.agents.items():
            normaliser = self._nets[agent].trunk.normaliser
            if normaliser is not None:
                normaliser.update(columns["observations"][columns["active"]])
        batch = RolloutBatch(rollout)
        return {
            **rollout.metrics,
            "epsilon": epsilon,
            "q_loss": sum(losses) / len(losses),
            "q_mean": sum(values) / len(values),
            "env_steps": float(batch.env_steps()),
            "agent_steps": float(batch.agent_steps()),
            "time/sample_s": sampled - start,
            "time/update_s": time.perf_counter() - sampled,
        }

    def _remember(self, rollout: Rollout) -> None:
        rewards = torch.stack([c["rewards"] for c in rollout.agents.values()])
        team = rewards.sum(dim=0) if self._config.reward == "team_sum" else rewards.mean(dim=0)
        rows = {"reward": team, "terminated": rollout.team["terminated"]}
        for agent, columns in rollout.agents.items():
            rows[f"{agent}/observation"] = columns["observations"]
            rows[f"{agent}/next"] = columns["next_observations"]
            rows[f"{agent}/action"] = columns["actions"]
            rows[f"{agent}/active"] = columns["active"]
            if "masks" in columns:
                raise ConfigError(
                    f"algorithm vdn does not support the action masks of '{agent}';"
                    " use mappo, ippo or happo"
                )
        flat = {key: row.flatten(0, 1) for key, row in rows.items()}
        count, size = flat["reward"].shape[0], self._config.replay_size
        if not self._replay:
            self._replay = {
                k: torch.zeros((0, *v.shape[1:]), dtype=v.dtype) for k, v in flat.items()
            }
        for key, new in flat.items():
            old = self._replay[key]
            if old.shape[0] < size:
                self._replay[key] = torch.cat([old, new])[-size:]
            else:
                places = (self._cursor + torch.arange(count)) % size
                old[places] = new
        self._cursor = (self._cursor + count) % size

    def _update(self) -> tuple[float, float]:
        generator = torch.Generator().manual_seed(self._seed * _SEED_STRIDE + self._updates)
        self._updates += 1
        stored = self._replay["reward"].shape[0]
        rows = torch.randint(stored, (self._config.minibatch_size,), generator=generator)
        data = {key: column[rows] for key, column in self._replay.items()}
        q = torch.zeros(rows.shape[0])
        future = torch.zeros(rows.shape[0])
        for agent, net in self._nets.items():
            distribution = net.distribution
            assert isinstance(distribution, CategoricalDistribution)
            active = data[f"{agent}/active"].to(torch.float32)
            values = net.values(data[f"{agent}/observation"])
            q = q + active * distribution.sum_chosen(values, data[f"{agent}/action"])
            with torch.no_grad():
                # Double Q-learning: the online network chooses, the target network judges.
                best = distribution.mode(net.values(data[f"{agent}/next"]))
                judged = self._targets[agent].values(data[f"{agent}/next"])
                future = future + distribution.sum_chosen(judged, best)
        going = (~data["terminated"]).to(torch.float32)
        target = data["reward"] + self._config.gamma * going * future
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
        return float(loss.detach()), float(q.detach().mean())

    def actors(self) -> dict[str, Actor]:
        """Return greedy actors whose logits are the Q values, sharpened."""
        config = MAPPOConfig(actor=self._config.network)
        found = {}
        for agent, net in self._nets.items():
            actor = self.team.build_actor(config, agent)
            state = {k: v.clone() for k, v in net.state_dict().items() if k != "epsilon"}
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
        for agent in self.team.agents:
            self._nets[agent].load_state_dict(state["networks"][agent])
            self._targets[agent].load_state_dict(state["targets"][agent])
        self._optimizer.load_state_dict(state["optimizer"])
        self._replay = {k: v.clone() for k, v in state["replay"].items()}
        self._cursor, self._updates = int(state["cursor"]), int(state["updates"])
        self._collector.load_state_dict(state["collector"])

    def close(self) -> None:
        """Close the environment."""
        self._collector.env.close()
