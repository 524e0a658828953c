"""MAPPO on mpe2's simple_spread against TorchRL's: speed, and how well both learn.

    python benchmarks/spread_peers.py [--only rates|to-return|after-steps] [--quick]

On both sides environments are stepped one after another in this process, and the critic sees all
observations; networks (64, 64), epochs, batches, learning rates, γ, λ, clip and entropy bonus are
equal. What each library does by itself (initial weights, normalisation of inputs, values and
advantages, whose reward a critic predicts) is left as it is. CPU time with one thread.

* ``rates``: agent-steps per CPU-second over the PettingZoo adapter, and over TorchRL's PettingZoo
  wrapper, collector and MAPPOLoss; in turns, medians of the repetitions.
* ``to-return``: CPU time and env steps until the mean return of the last five batches (160
  episodes) reaches -22.5 (random play: -26), learning rates 2e-3, three seeds, in two settings: one
  ReLU actor that all agents share, and a tanh actor for each agent.
* ``after-steps``: the mean return of the last ten batches after 120,000 env steps (`--env-steps`),
  learning rates 7e-4, one ReLU actor for all, five seeds, in play while learning; also with
  inputs normalised and as they are, and with a critic whose weights begin as TorchRL's do. A run of
  ours takes 45 CPU-seconds, one of TorchRL's 110; each is printed as it ends.

docs/learners.md tells what of the differences matters.
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
from functools import partial
from typing import Any, Literal

import torch
from learners import EPOCHS, MAPPO, batched, interleaved

from agents.learners.config import MAPPOConfig, NetworkConfig, SamplingConfig
from agents.learners.engines import local_engine
from agents.pettingzoo_adapter import PettingZooConfig, PettingZooVectorEnv, make_pettingzoo

SPREAD = PettingZooConfig(
    entry_point="mpe2.simple_spread_v3:parallel_env",
    kwargs={"max_cycles": 25},
    state="observations",
)
SAMPLING = SamplingConfig(num_sessions=32, rollout_length=25)
FRAMES = SAMPLING.env_steps_per_iteration
PASSES = 10  # over each batch where both sides learn
TARGET_RETURN, WINDOW = -22.5, 5  # of batches
MOST_BATCHES = 80  # then a side counts as not having reached the return
LAST = 10  # batches that a return after all steps is the mean of

Activation = Literal["relu", "tanh"]
Batch = Callable[[], tuple[float, float]]
"""Learns from one batch; returns its mean return, and what the critic explained of the targets."""


def spread(num_envs: int) -> PettingZooVectorEnv:
    return make_pettingzoo(SPREAD, num_envs)


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


def rates(quick: bool) -> dict[str, Any]:
    bare = spread(32)
    step = bare.reset(0)
    noop = {agent: torch.zeros(32, dtype=torch.int64) for agent in bare.agents}

    def stepping() -> float:
        for _ in range(25):
            bare.step(noop)
        return 3.0 * 32 * 25

    rows = {
        "batched, 32 environments": batched(local_engine(MAPPO, SAMPLING, 0, spread)),
        "TorchRL collector, 1 environment": torchrl_row(1, FRAMES),
        "TorchRL collector, 32 environments (SerialEnv)": torchrl_row(32, FRAMES),
        "stepping the environments alone (adapter)": stepping,
    }
    assert step.state.shape[0] == 32
    return interleaved(rows, 1 if quick else 3, 2.0 if quick else 6.0)


def ours(rate: float, activation: Activation, shared: bool, seed: int, **changes: Any) -> Batch:
    """Return our MAPPO with networks (64, 64); ``raw`` inputs are not normalised, and a ``uniform``
    critic's weights begin as torch makes them.
    """
    raw, uniform = changes.pop("raw", False), changes.pop("uniform", False)
    network = NetworkConfig(hidden=(64, 64), activation=activation, normalise_inputs=not raw)
    critic = network.model_copy(update={"initial_weights": "uniform"}) if uniform else network
    config = MAPPOConfig(
        actor=network, critic=critic, epochs=PASSES, learning_rate=rate,
        critic_learning_rate=rate, share_parameters=shared, **changes,
    )  # fmt: skip
    engine = local_engine(config, SAMPLING, seed, spread)

    def batch() -> tuple[float, float]:
        metrics = engine.iterate(0)
        return metrics["episode/return"], metrics["explained_variance/critic"]

    return batch


def theirs(rate: float, activation: Activation, shared: bool, seed: int) -> Batch:
    """Return TorchRL's."""
    layer = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}[activation]
    iterate = torchrl_row(
        SAMPLING.num_sessions, FRAMES, PASSES, rate, seed, shared=shared, activation=layer
    )

    def batch() -> tuple[float, float]:
        iterate()
        return iterate.episode_return, iterate.explained_variance  # type: ignore[attr-defined]

    return batch


SETTINGS: dict[str, tuple[Activation, bool]] = {
    "a tanh actor for each agent": ("tanh", False),
    "one ReLU actor for all agents": ("relu", True),
}


def to_return(quick: bool) -> dict[str, Any]:
    """Return, per setting and side, what :func:`until_return` says."""
    return {
        name: until_return(*setting, range(1 if quick else 3)) for name, setting in SETTINGS.items()
    }


def until_return(activation: Activation, shared: bool, seeds: range) -> dict[str, Any]:
    """Return CPU seconds and env steps until each side's return is good, by median over seeds.

    Args:
        activation: of all networks.
        shared: whether the agents share one actor.
        seeds: one run of each side with each.

    Returns:
        per side medians and each seed's run; infinity where the return was not reached.
    """

    def reached(batch: Callable[[], tuple[float, float]]) -> dict[str, float]:
        start, ends = time.process_time(), [batch()]
        while len(ends) < MOST_BATCHES and not good(ends):
            ends.append(batch())
        return {
            "CPU seconds": time.process_time() - start if good(ends) else math.inf,
            "env steps": FRAMES * len(ends) if good(ends) else math.inf,
            "last returns": statistics.mean(value for value, _ in ends[-WINDOW:]),
            "last explained variance": statistics.mean(value for _, value in ends[-WINDOW:]),
        }

    def good(ends: list[tuple[float, float]]) -> bool:
        last = [value for value, _ in ends[-WINDOW:]]
        return len(last) == WINDOW and statistics.mean(last) >= TARGET_RETURN

    sides = {"batched": ours, "TorchRL": theirs}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for seed in seeds:
        for name, side in sides.items():
            runs[name].append(reached(side(2e-3, activation, shared, seed)))
            print(f"{activation}, seed {seed}, {name}: {runs[name][-1]}", file=sys.stderr)
    return {
        name: {
            "CPU seconds": statistics.median(end["CPU seconds"] for end in ends),
            "env steps": statistics.median(end["env steps"] for end in ends),
            "seeds": ends,
        }
        for name, ends in runs.items()
    }


def after_steps(quick: bool, env_steps: int, seeds: range) -> dict[str, Any]:
    """Return, per side, each seed's mean return of the last batches."""
    sides: dict[str, Callable[..., Batch]] = {
        "batched, inputs normalised": ours,
        "batched, inputs as they are (as in runs on PettingZoo environments)": partial(
            ours, raw=True
        ),
        "batched, inputs as they are, the critic's initial weights uniform": partial(
            ours, raw=True, uniform=True
        ),
        "TorchRL": theirs,
    }
    found: dict[str, list[float]] = {name: [] for name in sides}
    for seed in seeds[:1] if quick else seeds:
        for name, side in sides.items():
            start, batch = time.process_time(), side(7e-4, "relu", True, seed)
            returns = [batch()[0] for _ in range(env_steps // FRAMES)]
            found[name].append(round(statistics.mean(returns[-LAST:]), 2))
            early = round(statistics.mean(returns[: len(returns) // 5][-LAST:]), 2)
            print(
                f"seed {seed}, {name}: {found[name][-1]} (after a fifth: {early}),"
                f" {time.process_time() - start:.0f} CPU seconds",
                file=sys.stderr,
                flush=True,
            )
    return {
        name: {"mean": round(statistics.mean(each), 2), "seeds": each}
        for name, each in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one repetition, one seed")
    parser.add_argument("--only", choices=["rates", "to-return", "after-steps"])
    parser.add_argument("--env-steps", type=int, default=120_000, help="of after-steps")
    parser.add_argument("--seeds", type=int, default=5, help="of after-steps")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    after = partial(after_steps, env_steps=arguments.env_steps, seeds=range(arguments.seeds))
    comparisons: Mapping[str, tuple[str, Callable[[bool], Any]]] = {
        "rates": ("agent-steps per CPU-second", rates),
        "to-return": (f"time to a return of {TARGET_RETURN}", to_return),
        "after-steps": (f"return after {arguments.env_steps:,} env steps", after),
    }
    report: dict[str, Any] = {"torch": torch.__version__, "threads": 1}
    for name, (title, compare) in comparisons.items():
        if arguments.only in (None, name):
            report[title] = compare(arguments.quick)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
