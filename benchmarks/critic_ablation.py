"""Which setting of MAPPO matters on simple_spread: one change at a time.

    python benchmarks/critic_ablation.py [--networks tanh|relu] [--seeds 3] [--arms "γ 0.9|..."]
        [--env-steps 1000000]

All runs have 32 copies, batches of 800 env steps, 10 epochs, networks (64, 64) and otherwise the
defaults; each arm changes what its name says. ``tanh``: an actor for each agent, learning rates
2e-3, 64,000 env steps, as where a tanh team needs more steps than TorchRL's. ``relu``: one actor
for all, 7e-4, 120,000 env steps, as in `spread_peers.py --only after-steps`. Printed of each run:
env steps until the mean return of five batches (160 episodes) reaches -22.5 (null: never), the mean
return of the last ten batches, and of the last batch how much of the value targets' variance the
critic explained and the standard deviation of the advantages; then each arm's mean return.

The environment is `mpe2`'s simple_spread written for all copies at once, since stepping the
original takes three quarters of the time; the two are compared first. A run takes 6 CPU-seconds
with tanh and 18 with ReLU. "TorchRL's settings" are those of its MAPPOLoss by default, with its
layers' initial weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from agents.learners import networks
from agents.learners.config import MAPPOConfig, NetworkConfig, SamplingConfig
from agents.learners.engines import LocalEngine, local_engine
from marec_env.vector import Action, VecStep

TARGET_RETURN, WINDOW, LAST = -22.5, 5, 10
SAMPLING = SamplingConfig(num_sessions=32, rollout_length=25)
VALUES_RAW = {"normalise_values": False, "value_clip": None, "huber_delta": 1.0}
Activation = Literal["tanh", "relu"]


@dataclass(frozen=True)
class Setting:
    """What all arms have in common."""

    activation: Activation
    rate: float
    shared: bool
    batches: int

    def network(self, **changes: Any) -> NetworkConfig:
        """Return an actor's or critic's."""
        return NetworkConfig(**{"hidden": (64, 64), "activation": self.activation, **changes})

    @property
    def base(self) -> dict[str, Any]:
        """The algorithm's settings."""
        return {
            "actor": self.network(), "critic": self.network(), "epochs": 10,
            "learning_rate": self.rate, "critic_learning_rate": self.rate,
            "share_parameters": self.shared,
        }  # fmt: skip

    @property
    def arms(self) -> dict[str, dict[str, Any]]:
        """What each arm changes."""
        raw = self.network(normalise_inputs=False)
        uniform = self.network(initial_weights="uniform")
        raw_uniform = self.network(normalise_inputs=False, initial_weights="uniform")
        arms: dict[str, dict[str, Any]] = {
            "defaults": {},
            "γ 0.9": {"gamma": 0.9},
            "critic sees nothing": {"blind": True},
            "gain 1": {"gain": 1.0},
            "uniform initial weights": {"actor": uniform, "critic": uniform},
            "inputs not normalised": {"actor": raw, "critic": raw},
            "critic's inputs not normalised": {"critic": raw},
            "actor's inputs not normalised": {"actor": raw},
            "inputs not normalised and values not clipped": {
                "actor": raw, "critic": raw, "value_clip": None,
            },
            "values not normalised": VALUES_RAW,
            "values not clipped": {"value_clip": None},
            "advantages not normalised": {"normalise_advantages": "none"},
            "own rewards": {"reward": "own"},
            "inputs not normalised, uniform initial weights": {
                "actor": raw_uniform, "critic": raw_uniform,
            },
            "inputs not normalised, uniform initial weights of the critic": {
                "actor": raw, "critic": raw_uniform,
            },
            "inputs not normalised, uniform initial weights of the actor": {
                "actor": raw_uniform, "critic": raw,
            },
            "TorchRL's settings": {
                **VALUES_RAW, "actor": raw_uniform, "critic": raw_uniform, "reward": "own",
                "normalise_advantages": "agent", **({"agent_ids": False} if self.shared else {}),
            },
        }  # fmt: skip
        if self.shared:
            return {**arms, "no agent ids": {"agent_ids": False}}
        arms["ReLU critic"] = {"critic": self.network(activation="relu")}
        return {**arms, "critic's learning rate 5e-4": {"critic_learning_rate": 5e-4}}


SETTINGS = {"tanh": Setting("tanh", 2e-3, False, 80), "relu": Setting("relu", 7e-4, True, 150)}


class Spread:
    """simple_spread with three agents and episodes of 25 steps, all copies at once.

    Constants are those of mpe2: time step 0.1, damping 0.25, force 5 an action, contact force 100
    with margin 0.001, agents of radius 0.15, rewards half the team's and half the agent's.
    """

    length = 25

    def __init__(self, num_envs: int, blind: bool = False) -> None:
        self.num_envs, self._blind = num_envs, blind
        self.agents = ("agent_0", "agent_1", "agent_2")
        self.turns = (self.agents,)
        self.observation_spaces = dict.fromkeys(
            self.agents, spaces.Box(-np.inf, np.inf, (18,), np.float32)
        )
        self.action_spaces: dict[str, spaces.Space[Any]] = dict.fromkeys(
            self.agents, spaces.Discrete(5)
        )
        self.state_space = spaces.Box(-np.inf, np.inf, (54,), np.float32)
        self._push = 5.0 * torch.tensor([[0.0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]])
        self._generator = torch.Generator()
        self._start()

    def _start(self) -> None:
        shape = (self.num_envs, 3, 2)
        self.place = torch.rand(shape, generator=self._generator) * 2 - 1
        self.speed = torch.zeros(shape)
        self.landmarks = torch.rand(shape, generator=self._generator) * 2 - 1
        self._time, self._return = 0, torch.zeros(self.num_envs)

    def observe(self, agent: str) -> Tensor:
        """Return own velocity and place, landmarks and others relative to it, and silence."""
        i = self.agents.index(agent)
        here = self.place[:, i : i + 1]
        others = self.place[:, [j for j in range(3) if j != i]]
        parts = [self.speed[:, i], self.place[:, i], (self.landmarks - here).flatten(1)]
        return torch.cat(
            [*parts, (others - here).flatten(1), torch.zeros(self.num_envs, 4)], dim=-1
        )

    def _views(self) -> tuple[dict[str, Tensor], Tensor]:
        views = {agent: self.observe(agent) for agent in self.agents}
        state = torch.cat(list(views.values()), dim=-1)
        return views, torch.zeros_like(state) if self._blind else state

    def reset(self, seed: int) -> VecStep:
        """Start new episodes."""
        self._generator.manual_seed(seed)
        self._start()
        views, state = self._views()
        nobody = torch.zeros(self.num_envs, dtype=torch.bool)
        return VecStep(
            observations=views, state=state,
            rewards=dict.fromkeys(self.agents, torch.zeros(self.num_envs)),
            terminated=nobody, truncated=nobody, final_state=state, final_observations=views,
        )  # fmt: skip

    def act(self, actions: Mapping[str, Action]) -> None:
        """Take all agents' actions."""
        moves = [torch.as_tensor(actions[agent]) for agent in self.agents]
        self._moves = torch.stack(moves, dim=1).long().view(self.num_envs, 3)

    def _between(self) -> tuple[Tensor, Tensor]:
        """Return vectors ``[B, 3, 3, 2]`` between agents and their lengths."""
        apart = self.place[:, :, None] - self.place[:, None]
        return apart, apart.norm(dim=-1)

    def _rewards(self) -> dict[str, Tensor]:
        reach = (self.landmarks[:, :, None] - self.place[:, None]).norm(dim=-1)
        team = -reach.min(dim=-1).values.sum(dim=-1)
        touching = (self._between()[1] < 0.3).float() * (1 - torch.eye(3))
        own = -touching.sum(dim=-1)
        return {agent: 0.5 * team + 0.5 * own[:, i] for i, agent in enumerate(self.agents)}

    def advance(self) -> VecStep:
        """Move all agents; start anew after the last step."""
        apart, distance = self._between()
        distance = distance + torch.eye(3)
        depth = torch.nn.functional.softplus(-(distance - 0.3) / 1e-3) * 1e-3 * (1 - torch.eye(3))
        contact = (100.0 * apart / distance[..., None] * depth[..., None]).sum(dim=2)
        self.place = self.place + self.speed * 0.1
        self.speed = self.speed * 0.75 + (self._push[self._moves] + contact) * 0.1
        self._time += 1
        rewards = self._rewards()
        self._return = self._return + torch.stack(list(rewards.values())).mean(dim=0)
        final_views, final_state = self._views()
        over = torch.full((self.num_envs,), self._time == self.length)
        episodes = {"return": self._return} if bool(over[0]) else {}
        if bool(over[0]):
            self._start()
        views, state = self._views()
        return VecStep(
            observations=views, state=state, rewards=rewards,
            terminated=torch.zeros_like(over), truncated=over, final_state=final_state,
            final_observations=final_views, episodes=episodes,
        )  # fmt: skip

    def step(self, actions: Mapping[str, Action]) -> VecStep:
        """Act, then advance."""
        self.act(actions)
        return self.advance()

    def close(self) -> None:
        """Release nothing."""


def largest_difference(episodes: int = 4) -> float:
    """Return how far :class:`Spread` is from mpe2 in rewards and observations; crowded starts."""
    from mpe2 import simple_spread_v3

    theirs, ours, worst = simple_spread_v3.parallel_env(max_cycles=25), Spread(1), 0.0
    for episode in range(episodes):
        theirs.reset(seed=episode)
        world = theirs.unwrapped.world
        for agent in world.agents:
            agent.state.p_pos = agent.state.p_pos * 0.3  # so that they collide
        ours.reset(0)
        ours.place = torch.tensor(np.stack([a.state.p_pos for a in world.agents]))[None].float()
        places = np.stack([mark.state.p_pos for mark in world.landmarks])
        ours.landmarks = torch.tensor(places)[None].float()
        rng = np.random.default_rng(episode)
        for _ in range(Spread.length - 1):
            actions = {agent: int(rng.integers(5)) for agent in ours.agents}
            views, rewards, *_ = theirs.step(actions)
            step = ours.step({agent: torch.tensor([a]) for agent, a in actions.items()})
            for agent in ours.agents:
                gaps = np.abs(step.observations[agent][0].numpy() - views[agent])
                worst = max(worst, gaps.max(), abs(float(step.rewards[agent]) - rewards[agent]))
    return worst


def learn(setting: Setting, arm: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return how one run went."""
    settings = {**setting.base, **arm}
    blind, gain = settings.pop("blind", False), settings.pop("gain", None)
    gains = {} if gain is None else {setting.activation: gain}
    with patch.dict(networks._GAINS, gains):
        engine = local_engine(MAPPOConfig(**settings), SAMPLING, seed, lambda n: Spread(n, blind))
    returns: list[float] = []
    reached = None
    for _ in range(setting.batches):
        metrics = engine.iterate(0)
        returns.append(metrics["episode/return"])
        good = len(returns) >= WINDOW and statistics.mean(returns[-WINDOW:]) >= TARGET_RETURN
        if reached is None and good:
            reached = SAMPLING.env_steps_per_iteration * len(returns)
    spread = advantage_deviation(engine)
    return {
        "reached": reached,
        "return": round(statistics.mean(returns[-LAST:]), 2),
        "explained": round(metrics["explained_variance/critic"], 2),
        "advantages": round(spread, 2),
    }


def advantage_deviation(engine: LocalEngine) -> float:
    """Return the standard deviation of a new batch's advantages, in units of reward."""
    algorithm = engine.learner.algorithm
    engine.learner.algorithm = algorithm.model_copy(update={"normalise_advantages": "none"})
    actors, _ = engine.learner.prepare(engine.batch.sample()[0])
    engine.learner.algorithm = algorithm
    return float(torch.cat([columns["advantages"] for columns in actors.values()]).std())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--networks", choices=list(SETTINGS), default="tanh")
    parser.add_argument("--arms", help="names, with | between; default: all")
    parser.add_argument("--env-steps", type=int, help="default: as told above")
    arguments = parser.parse_args()
    setting = SETTINGS[arguments.networks]
    if arguments.env_steps:
        batches = arguments.env_steps // SAMPLING.env_steps_per_iteration
        setting = replace(setting, batches=batches)
    names = arguments.arms.split("|") if arguments.arms else list(setting.arms)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    worst = largest_difference()
    print(f"largest difference from mpe2: {worst:.1e}", flush=True)
    if worst > 1e-3:
        raise SystemExit("the environment is not mpe2's")
    found: dict[str, list[float]] = {name: [] for name in names}
    for seed in range(arguments.seeds):
        for name in names:
            run = learn(setting, setting.arms[name], seed)
            found[name].append(run["return"])
            print(json.dumps({"arm": name, "seed": seed, **run}, ensure_ascii=False), flush=True)
    for name, returns in found.items():
        print(f"{name}: {statistics.mean(returns):.2f}")


if __name__ == "__main__":
    main()
