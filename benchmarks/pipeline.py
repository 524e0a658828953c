"""Throughput of the whole simulator, and where its time goes: ``python benchmarks/pipeline.py``.

MovieLens-100k catalog, C = 100, K = 10, the four built-in components playing random actions, one
thread. Process CPU time; medians over blocks that are interleaved over the cases, so that a slow
spell of the machine meets all of them alike; the best block is printed beside the median, since
another process on the same core slows down a block but never speeds it up. The one-session
PettingZoo view, as it is and compiled (a minute, the first time), is compared with ``mpe2``
simple_spread in the same run, and the exact top-k with ``torch.topk``. Texts are hashed, not
encoded, since the encoder plays no part at run time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from mpe2 import simple_spread_v3

import marec_env
from marec_env.config.loader import load
from marec_env.environment_config import EnvironmentConfig
from marec_env.pipeline.selection import top_k
from marec_env.simulator import Simulator

CONFIG = {"embeddings": {"encoder": "hashing", "reduction": {"dimension": 32}}}
SIZES = (1, 64, 1024)
TARGET = 30_000  # requests a second at B = 1,024
BLOCKS = 9
ROWS = 8192  # requests a block aims at
ACTIONS = 8  # different batches of random actions that take turns

Block = Callable[[], float]
"""Runs one block and returns steps (or requests) per second of CPU time."""


def random_batches(simulator: Simulator) -> list[dict[str, torch.Tensor]]:
    """Return batches of actions, uniform over the built-in components' spaces."""
    source = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(ACTIONS):
        batch = {}
        for agent, space in simulator.action_spaces.items():
            shape = (simulator.num_envs, *space.shape)
            if hasattr(space, "nvec"):
                batch[agent] = torch.randint(0, int(space.nvec[0]), shape, generator=source)
            else:
                batch[agent] = 2 * torch.rand(shape, generator=source) - 1
        batches.append(batch)
    return batches


def simulator_block(simulator: Simulator) -> Block:
    batches = random_batches(simulator)
    steps = min(200, max(ROWS // simulator.num_envs, 8))

    def block() -> float:
        begin = time.process_time()
        for step in range(steps):
            simulator.step(batches[step % ACTIONS])
        return steps * simulator.num_envs / (time.process_time() - begin)

    return block


def pettingzoo_block(env, steps: int) -> Block:
    """Return a block of a parallel environment under fixed actions, resets included."""
    env.reset(seed=0)
    actions = {agent: env.action_space(agent).sample() for agent in env.agents}

    def block() -> float:
        begin = time.process_time()
        for _ in range(steps):
            if not env.agents:
                env.reset()
            env.step({agent: actions[agent] for agent in env.agents})
        return steps / (time.process_time() - begin)

    return block


def top_k_block(function: Callable[[torch.Tensor, int], object], scores: torch.Tensor) -> Block:
    def block() -> float:
        begin = time.process_time()
        function(scores, 100)
        return scores.shape[0] / (time.process_time() - begin)

    return block


def print_stages(simulator: Simulator, steps: int = 30) -> None:
    """Print the time of each part of a request, median over steps."""
    batches = random_batches(simulator)
    spent: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[[], object]) -> object:
        begin = time.process_time()
        result = call()
        spent.setdefault(name, []).append(time.process_time() - begin)
        return result

    for step in range(steps):
        batch = batches[step % ACTIONS]
        for agent in simulator.agents:
            timed(agent, lambda agent=agent, batch=batch: simulator.act({agent: batch[agent]}))
        timed("users, rewards, memory", simulator.advance)
    print(f"\nparts of a request at B = {simulator.num_envs}")
    total = sum(statistics.median(times) for times in spent.values())
    for name, times in spent.items():
        value = statistics.median(times)
        print(f"  {name:<24} {1e3 * value:7.2f} ms  {100 * value / total:5.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, help="YAML of an environment; default: built in")
    parser.add_argument("--blocks", type=int, default=BLOCKS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = load(options.config, EnvironmentConfig) if options.config else CONFIG
    simulators = {size: marec_env.make_vec(config, size) for size in SIZES}
    scores = torch.randn(1024, simulators[1].world.knowledge.num_items)
    cases = {f"simulator, B = {size}": simulator_block(simulators[size]) for size in SIZES} | {
        "PettingZoo view": pettingzoo_block(marec_env.parallel_env(config), 150),
        "PettingZoo view, compiled": pettingzoo_block(
            marec_env.parallel_env(config, compiled=True), 500
        ),
        "mpe2 simple_spread": pettingzoo_block(simple_spread_v3.parallel_env(), 500),
        "top_k, rows": top_k_block(top_k, scores),
        "torch.topk, rows": top_k_block(torch.topk, scores),
    }
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(options.blocks):
        for name, block in cases.items():
            found[name].append(block())
    print(f"{'per second of CPU':<26} {'median':>9} {'best':>9}")
    for name, values in found.items():
        print(f"{name:<26} {statistics.median(values):>9.0f} {max(values):>9.0f}")
    reached = max(found[f"simulator, B = {SIZES[-1]}"])
    print(f"target at B = {SIZES[-1]}: {TARGET}; best block: {100 * reached / TARGET:.0f} %")
    print_stages(simulators[SIZES[-1]])


if __name__ == "__main__":
    main()
