"""An algorithm of your own: thirty lines over ``make_vec`` that learn, and our comparison table.

``python examples/own_algorithm.py RUN`` learns in the environment of a run (``python train.py
configs/quick.yaml --run-dir RUN``), records what it learned as a run's folder, and compares the
two. By cross-entropy it searches how the ranking should weigh its blocks: every session of a batch
plays a decision of its own for one episode, and the best tenth shape the next batch.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

import marec_env
from agents import record_policy
from agents.baselines.teams import StaticTeam, hand_set_actions
from agents.commands.compare import command as compare
from marec_env.simulator import Simulator

AGENT = "ranking_0"


def play(env: Simulator, decisions: Tensor, seed: int) -> tuple[Tensor, int]:
    """Play one episode in which session b decides ``decisions[b]``; return clicks ``[B]`` and how
    many requests it took.
    """
    env.reset(seed)
    alive, clicks = torch.ones(env.num_envs, dtype=torch.bool), torch.zeros(env.num_envs)
    requests = 0
    while alive.any():
        requests += int(alive.sum())
        step = env.step({**env.default_actions(), AGENT: decisions})
        clicks += step.metrics["clicks"] * alive
        alive &= ~(step.terminated | step.truncated)
    return clicks, requests


def learn(env: Simulator, budget: int, seed: int = 0) -> Tensor:
    """Return the decision that a search of at most ``budget`` requests ends with, ``[d]``."""
    space, generator = env.action_spaces[AGENT], torch.Generator().manual_seed(seed)
    low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
    mean, spread = hand_set_actions(env)[AGENT], (high - low) / 4
    spent, generation = 0, 0
    while spent + env.num_envs * env.config.max_requests <= budget:
        noise = torch.randn(env.num_envs, len(low), generator=generator)
        decisions = torch.clamp(mean + spread * noise, low, high)
        clicks, requests = play(env, decisions, seed * budget + generation)
        best = decisions[clicks.topk(max(2, env.num_envs // 10)).indices]
        mean, spread = best.mean(0), best.std(0)
        spent, generation = spent + requests, generation + 1
        print(f"{spent:,} requests: {clicks.mean():.1f} clicks a session")
    return mean


def main(run: str, budget: int = 100_000, sessions: int = 256, seed: int = 0) -> Path:
    """Learn in a run's environment, and return the folder of what was learned."""
    config = f"{run}/config.yaml"
    env = marec_env.make_vec(config, num_sessions=sessions)
    team = StaticTeam({**hand_set_actions(env), AGENT: learn(env, budget, seed)})
    folder = record_policy(
        team, config, "cross-entropy", budget, seed=seed, settings={"sessions": sessions}
    )
    compare([Path(run), folder], output=folder / "comparison")
    return folder


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
