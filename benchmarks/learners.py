"""Agent-steps per CPU-second of the batched path against RLlib's, and what the learner adds.

    python benchmarks/learners.py [--quick]

Two comparisons, networks (64, 64) and equal epochs, medians of the repetitions, CPU time of this
process with one thread (against TorchRL: spread_peers.py):

1. a null environment (three components with Box, MultiDiscrete and Discrete actions), where the
   learning system is all that costs: batched path against RLlib's PPO with 1 and 8 environments;
2. the learner's update against a bare torch loop over the same data and networks.

Run time about four minutes; `--quick` about one. `--only null` runs one comparison.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from agents.learners.config import MAPPOConfig, NetworkConfig, RLlibConfig, SamplingConfig
from agents.learners.engines import LocalEngine, local_engine
from agents.learners.losses import clipped_policy_loss, clipped_value_loss, weighted_mean
from marec_env.vector import Action, VecStep

EPOCHS = 4
NETWORK = NetworkConfig(hidden=(64, 64), activation="tanh")
MAPPO = MAPPOConfig(actor=NETWORK, critic=NETWORK, epochs=EPOCHS)


class NullEnv:
    """Costs nothing: constant observations, constant rewards, episodes of 32 steps."""

    length = 32

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.agents = ("first", "second", "third")
        self.turns = (self.agents,)
        box = spaces.Box(-1.0, 1.0, (16,), np.float32)
        self.observation_spaces = dict.fromkeys(self.agents, box)
        self.action_spaces: dict[str, spaces.Space[Any]] = {
            "first": spaces.Box(-1.0, 1.0, (4,), np.float32),
            "second": spaces.MultiDiscrete([3, 3, 3, 3]),
            "third": spaces.Discrete(5),
        }
        self.state_space = spaces.Box(-1.0, 1.0, (24,), np.float32)
        self._view = torch.zeros(num_envs, 16)
        self._state = torch.zeros(num_envs, 24)
        self._time = 0

    def _step(self) -> VecStep:
        over = torch.full((self.num_envs,), self._time == self.length)
        self._time %= self.length
        views = dict.fromkeys(self.agents, self._view)
        return VecStep(
            observations=views, state=self._state,
            rewards=dict.fromkeys(self.agents, torch.ones(self.num_envs)),
            terminated=over, truncated=torch.zeros_like(over),
            final_state=self._state, final_observations=views,
        )  # fmt: skip

    def reset(self, seed: int) -> VecStep:
        """Start."""
        self._time = 0
        return self._step()

    def observe(self, agent: str) -> torch.Tensor:
        """Return zeros."""
        return self._view

    def act(self, actions: Mapping[str, Action]) -> None:
        """Take no notice."""

    def advance(self) -> VecStep:
        """Count a step."""
        self._time += 1
        return self._step()

    def step(self, actions: Mapping[str, Action]) -> VecStep:
        """Count a step."""
        return self.advance()

    def close(self) -> None:
        """Release nothing."""


def rate(iterate: Callable[[], float], seconds: float) -> float:
    """Return agent-steps per CPU-second of ``iterate`` run for at least ``seconds``."""
    start, steps = time.process_time(), 0.0
    while time.process_time() - start < seconds:
        steps += iterate()
    return steps / (time.process_time() - start)


def interleaved(rows: Mapping[str, Callable[[], float]], rounds: int, seconds: float) -> Any:
    """Return the median rate of each row, measured in turns after one warm-up each."""
    for iterate in rows.values():
        iterate()
    seen: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, iterate in rows.items():
            seen[name].append(rate(iterate, seconds))
    return {name: statistics.median(values) for name, values in seen.items()}


def batched(engine: LocalEngine) -> Callable[[], float]:
    return lambda: engine.iterate(0)["agent_steps"]


def stock_row(num_envs: int) -> tuple[Callable[[], float], Callable[[], None]]:
    """RLlib's PPO with one module an agent, MAPPO's epochs, batches of 512 env steps."""
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    from agents.learners.ray_session import start_ray
    from agents.learners.stock import stock_config
    from agents.learners.team import TeamSpec

    sampling = SamplingConfig(num_sessions=num_envs, rollout_length=512 // num_envs)
    start_ray(sampling)
    config = stock_config(RLlibConfig(name="PPO"), sampling, TeamSpec.of(NullEnv(1)), NullEnv, 0)
    config = config.training(num_epochs=EPOCHS, minibatch_size=512, use_kl_loss=False)
    config = config.rl_module(
        model_config=DefaultModelConfig(
            fcnet_hiddens=list(NETWORK.hidden), fcnet_activation="tanh", vf_share_layers=False
        )
    )
    algorithm = config.build_algo()
    done = {"steps": 0.0}

    def iterate() -> float:
        result = algorithm.train()["env_runners"]["num_agent_steps_sampled_lifetime"]
        before, done["steps"] = done["steps"], float(sum(result.values()))
        return done["steps"] - before

    return iterate, algorithm.stop


def null_comparison(quick: bool) -> dict[str, Any]:
    engines = {
        f"batched, B = {B}": local_engine(
            MAPPO, SamplingConfig(num_sessions=B, rollout_length=32), 0, NullEnv
        )
        for B in (64, 256, 1024)
    }
    one, stop_one = stock_row(1)
    eight, stop_eight = stock_row(8)
    rows = {"stock, 1 environment": one, "stock, 8 environments": eight}
    rows.update({name: batched(engine) for name, engine in engines.items()})
    rates = interleaved(rows, 1 if quick else 3, 2.0 if quick else 5.0)
    stop_one(), stop_eight()
    shares = {}
    for name, engine in engines.items():
        sample = update = 0.0
        for _ in range(5):
            metrics = engine.iterate(0)
            sample += metrics["time/sample_s"]
            update += metrics["time/update_s"]
        shares[name] = {"sampling": sample / (sample + update), **learner_shares(engine)}
        shares[name]["advantages and SGD"] = update / (sample + update)
    return {"agent-steps per CPU-second": rates, "shares": shares}


def learner_shares(engine: LocalEngine) -> dict[str, float]:
    """Return which part of an update is spent before the first epoch (values and advantages)."""
    (batch,) = engine.batch.sample()
    start = time.process_time()
    engine.learner.prepare(batch)
    prepared = time.process_time() - start
    start = time.process_time()
    engine.learner.update(batch=batch, timesteps={}, _no_metrics_reduce=True)
    return {"values and advantages, of an update": prepared / (time.process_time() - start)}


def bare_update(engine: LocalEngine, batch: Any, optimizers: Mapping[str, Any]) -> None:
    """Do the learner's update in plain torch: same networks, data, losses and clipping."""
    learner, config = engine.learner, engine.learner.algorithm
    actors, critics = learner.prepare(batch)
    for _ in range(config.epochs):
        losses = []
        for name, columns in actors.items():
            net = learner.module[name].net
            log_p, entropy = net.distribution.evaluate(
                net.decide(columns["observations"])[0], columns["actions"], columns.get("masks")
            )
            log_ratio = log_p - columns["log_probabilities"]
            losses.append(
                clipped_policy_loss(
                    log_ratio, columns["advantages"], columns["weights"], config.clip
                )
                - config.entropy_coefficient * weighted_mean(entropy, columns["weights"])
            )
        for name, columns in critics.items():
            losses.append(
                clipped_value_loss(
                    learner.module[name].net(columns["inputs"])[0], columns["old_values"],
                    columns["targets"], columns["weights"], config.huber_delta, config.value_clip,
                )
            )  # fmt: skip
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()
        for optimizer in optimizers.values():
            torch.nn.utils.clip_grad_norm_(
                optimizer.param_groups[0]["params"], config.max_gradient_norm
            )
            optimizer.step()


def learner_overhead(quick: bool) -> dict[str, float]:
    """Return CPU time of the learner's update over that of the bare loop, by batch size."""
    found = {}
    for B in (64, 256, 1024):
        engine = local_engine(MAPPO, SamplingConfig(num_sessions=B, rollout_length=32), 0, NullEnv)
        (batch,) = engine.batch.sample()
        ratios = []
        for _ in range(3 if quick else 9):
            start = time.process_time()
            engine.learner.update(batch=batch, timesteps={}, _no_metrics_reduce=True)
            ours = time.process_time() - start
            start = time.process_time()
            bare_update(engine, batch, engine.learner._named_optimizers)
            ratios.append(ours / (time.process_time() - start))
        found[f"B = {B}, T = 32"] = statistics.median(ratios)
    return found


def null_report(quick: bool) -> dict[str, Any]:
    report = null_comparison(quick)
    rates = report["agent-steps per CPU-second"]
    report["batched B = 256 over stock"] = {
        "1 environment": rates["batched, B = 256"] / rates["stock, 1 environment"],
        "8 environments": rates["batched, B = 256"] / rates["stock, 8 environments"],
    }
    return report


COMPARISONS: dict[str, tuple[str, Callable[[bool], Any]]] = {
    "overhead": ("learner over bare torch loop", learner_overhead),
    "null": ("null environment", null_report),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one repetition")
    parser.add_argument("--only", choices=list(COMPARISONS), help="one comparison")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    report: dict[str, Any] = {"torch": torch.__version__, "threads": 1}
    for name, (title, compare) in COMPARISONS.items():
        if arguments.only in (None, name):
            report[title] = compare(arguments.quick)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
