"""Agent-steps per CPU-second of the batched path, RLlib's stock path, and TorchRL.

    python benchmarks/learners.py [--quick]

Four comparisons, each with the same environment, networks (64, 64) and epochs on both sides,
in turns within one process, medians of the repetitions, CPU time of this process with one thread:

1. a null environment (three components with Box, MultiDiscrete and Discrete actions), where the
   learning system is all that costs: batched path against RLlib's PPO with 1 and 8 environments;
2. `mpe2` simple_spread: batched path over the PettingZoo adapter against TorchRL's PettingZoo
   wrapper, collector and MAPPOLoss; on both sides the critic sees all observations;
3. the same two until they play well: CPU time and env steps until the mean return of the last five
   batches (160 episodes) reaches -22.5 (random play: -26), three seeds, in two settings: one ReLU
   actor that all agents share, and a tanh actor for each agent. Networks' sizes, epochs, batches,
   learning rates, γ, λ, clip and entropy bonus are equal on both sides; what each library does by
   itself (initial weights, normalisation of inputs, values and advantages, whose reward a critic
   predicts) is left as it is; benchmarks/critic_ablation.py tells what of it matters;
4. the learner's update against a bare torch loop over the same data and networks.

Run time about eight minutes; `--quick` about two. `--only to-return` runs one comparison.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces

from agents.learners.config import MAPPOConfig, NetworkConfig, RLlibConfig, SamplingConfig
from agents.learners.engines import LocalEngine
from agents.learners.losses import clipped_policy_loss, clipped_value_loss, weighted_mean
from agents.pettingzoo_adapter import PettingZooConfig, make_pettingzoo
from marec_env.vector import Action, VecStep

EPOCHS = 4
NETWORK = NetworkConfig(hidden=(64, 64), activation="tanh")
MAPPO = MAPPOConfig(actor=NETWORK, critic=NETWORK, epochs=EPOCHS)
SPREAD = PettingZooConfig(
    entry_point="mpe2.simple_spread_v3:parallel_env",
    kwargs={"max_cycles": 25},
    state="observations",
)
TARGET_RETURN = -22.5
WINDOW = 5  # batches
RETURN_EPOCHS = 10
RETURN_RATE = 2e-3  # learning rate of both sides when they learn to a return
MOST_BATCHES = 80  # of 800 env steps; then a side counts as not having reached the return


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
        f"batched, B = {B}": LocalEngine(
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
    batch = engine.sample()
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
        engine = LocalEngine(MAPPO, SamplingConfig(num_sessions=B, rollout_length=32), 0, NullEnv)
        batch = engine.sample()
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


def torchrl_row(
    num_envs: int,
    frames: int,
    epochs: int = EPOCHS,
    rate: float = 5e-4,
    seed: int = 0,
    shared: bool = False,
    activation: type[torch.nn.Module] = torch.nn.Tanh,
) -> Callable[[], float]:
    """TorchRL's MAPPO on simple_spread, after its multi-agent PPO tutorial, with PettingZooEnv."""
    from mpe2 import simple_spread_v3
    from tensordict.nn import TensorDictModule
    from torchrl.collectors import Collector
    from torchrl.envs import RewardSum, SerialEnv, TransformedEnv
    from torchrl.envs.libs.pettingzoo import PettingZooWrapper
    from torchrl.modules import MultiAgentMLP, ProbabilisticActor
    from torchrl.objectives.multiagent import MAPPOLoss

    torch.manual_seed(seed)

    def make() -> Any:
        return PettingZooWrapper(
            simple_spread_v3.parallel_env(max_cycles=25), group_map={"agents": [
                "agent_0", "agent_1", "agent_2"]}, categorical_actions=True,
        )  # fmt: skip

    env = TransformedEnv(
        SerialEnv(num_envs, make) if num_envs > 1 else make(),
        RewardSum(in_keys=[("agents", "reward")], out_keys=[("agents", "episode_reward")]),
    )
    actor_net = MultiAgentMLP(
        18, 5, 3, centralized=False, share_params=shared, depth=2, num_cells=64,
        activation_class=activation,
    )  # fmt: skip
    critic_net = MultiAgentMLP(
        18, 1, 3, centralized=True, share_params=True, depth=2, num_cells=64,
        activation_class=activation,
    )  # fmt: skip
    observation = ("agents", "observation")
    actor = ProbabilisticActor(
        TensorDictModule(actor_net, [observation], [("agents", "logits")]),
        spec=env.full_action_spec_unbatched,
        in_keys=[("agents", "logits")], out_keys=[("agents", "action")],
        distribution_class=torch.distributions.Categorical,
        return_log_prob=True, log_prob_key=("agents", "action_log_prob"),
    )  # fmt: skip
    critic = TensorDictModule(critic_net, [observation], [("agents", "state_value")])
    loss_module = MAPPOLoss(actor, critic, clip_epsilon=0.2, entropy_coeff=0.01)
    loss_module.set_keys(
        reward=("agents", "reward"), action=("agents", "action"),
        value=("agents", "state_value"), done=("agents", "done"),
        terminated=("agents", "terminated"),
        sample_log_prob=("agents", "action_log_prob"),
    )  # fmt: skip
    loss_module.make_value_estimator(gamma=0.99, lmbda=0.95)
    optimizer = torch.optim.Adam(loss_module.parameters(), lr=rate, eps=1e-5)
    env.set_seed(seed)
    collector = Collector(env, actor, frames_per_batch=frames, total_frames=-1)
    stream = iter(collector)

    def iterate() -> float:
        data = next(stream)
        with torch.no_grad():
            loss_module.value_estimator(
                data, params=loss_module.critic_network_params,
                target_params=loss_module.target_critic_network_params,
            )  # fmt: skip
        flat = data.reshape(-1)
        over = data["next", "done"].squeeze(-1)
        error, target = data["value_target"] - data["agents", "state_value"], data["value_target"]
        iterate.explained_variance = float(  # type: ignore[attr-defined]
            1.0 - error.var() / target.var()
        )
        iterate.episode_return = float(  # type: ignore[attr-defined]
            data["next", "agents", "episode_reward"][over].mean()
        )
        for _ in range(epochs):
            losses = loss_module(flat)
            total = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            torch.nn.utils.clip_grad_norm_(loss_module.parameters(), 10.0)
            optimizer.step()
        return float(3 * data.numel())

    return iterate


def spread_comparison(quick: bool) -> dict[str, Any]:
    """Both sides step the environments one after another in this process."""

    def spread(n: int) -> Any:
        return make_pettingzoo(SPREAD, n)

    def ours(num_envs: int) -> Callable[[], float]:
        return batched(
            LocalEngine(
                MAPPO,
                SamplingConfig(num_sessions=num_envs, rollout_length=800 // num_envs),
                0,
                spread,
            )
        )

    bare = spread(32)
    step = bare.reset(0)
    noop = {agent: torch.zeros(32, dtype=torch.int64) for agent in bare.agents}

    def stepping() -> float:
        for _ in range(25):
            bare.step(noop)
        return 3.0 * 32 * 25

    rows = {
        "batched, 32 environments": ours(32),
        "TorchRL collector, 1 environment": torchrl_row(1, 800),
        "TorchRL collector, 32 environments (SerialEnv)": torchrl_row(32, 800),
        "stepping the environments alone (adapter)": stepping,
    }
    assert step.state.shape[0] == 32
    return interleaved(rows, 1 if quick else 3, 2.0 if quick else 6.0)


RETURN_SETTINGS: dict[str, tuple[Literal["relu", "tanh"], bool]] = {
    "a tanh actor for each agent": ("tanh", False),
    "one ReLU actor for all agents": ("relu", True),
}


def to_return(quick: bool) -> dict[str, Any]:
    """Return, per setting and side, what :func:`until_return` says."""
    return {
        name: until_return(activation, shared, range(1 if quick else 3))
        for name, (activation, shared) in RETURN_SETTINGS.items()
    }


def until_return(activation: Literal["relu", "tanh"], shared: bool, seeds: range) -> dict[str, Any]:
    """Return CPU seconds and env steps until each side's return is good, by median over seeds.

    Args:
        activation: of all networks.
        shared: whether the agents share one actor.
        seeds: one run of each side with each.

    Returns:
        per side medians and each seed's run; infinity where the return was not reached.
    """
    sampling = SamplingConfig(num_sessions=32, rollout_length=25)

    def ours(seed: int) -> Callable[[], tuple[float, float]]:
        network = NetworkConfig(hidden=(64, 64), activation=activation)
        config = MAPPOConfig(
            actor=network,
            critic=network,
            epochs=RETURN_EPOCHS,
            learning_rate=RETURN_RATE,
            critic_learning_rate=RETURN_RATE,
            share_parameters=shared,
        )
        engine = LocalEngine(config, sampling, seed, lambda n: make_pettingzoo(SPREAD, n))

        def batch() -> tuple[float, float]:
            metrics = engine.iterate(0)
            return metrics["episode/return"], metrics["explained_variance/critic"]

        return batch

    def theirs(seed: int) -> Callable[[], tuple[float, float]]:
        layer = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}[activation]
        iterate = torchrl_row(
            32, 800, RETURN_EPOCHS, RETURN_RATE, seed, shared=shared, activation=layer
        )

        def batch() -> tuple[float, float]:
            iterate()
            return iterate.episode_return, iterate.explained_variance  # type: ignore[attr-defined]

        return batch

    def reached(batch: Callable[[], tuple[float, float]]) -> dict[str, float]:
        start, ends = time.process_time(), [batch()]
        while len(ends) < MOST_BATCHES and not good(ends):
            ends.append(batch())
        return {
            "CPU seconds": time.process_time() - start if good(ends) else math.inf,
            "env steps": 800.0 * len(ends) if good(ends) else math.inf,
            "last returns": statistics.mean(value for value, _ in ends[-WINDOW:]),
            "last explained variance": statistics.mean(value for _, value in ends[-WINDOW:]),
        }

    def good(ends: list[tuple[float, float]]) -> bool:
        last = [value for value, _ in ends[-WINDOW:]]
        return len(last) == WINDOW and statistics.mean(last) >= TARGET_RETURN

    sides: dict[str, Callable[[int], Callable[[], tuple[float, float]]]] = {
        "batched": ours,
        "TorchRL": theirs,
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for seed in seeds:
        for name, side in sides.items():
            runs[name].append(reached(side(seed)))
            print(f"{activation}, seed {seed}, {name}: {runs[name][-1]}", file=sys.stderr)
    return {
        name: {
            "CPU seconds": statistics.median(end["CPU seconds"] for end in ends),
            "env steps": statistics.median(end["env steps"] for end in ends),
            "seeds": ends,
        }
        for name, ends in runs.items()
    }


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
    "spread": ("simple_spread, agent-steps per CPU-second", spread_comparison),
    "to-return": (f"simple_spread, time to a return of {TARGET_RETURN}", to_return),
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
