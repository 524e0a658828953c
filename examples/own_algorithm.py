"""An algorithm of your own: thirty lines over ``make_vec`` that learn, and a comparison at the end.

``python examples/own_algorithm.py`` searches by cross-entropy how the ranking should weigh its
blocks: every session of a batch plays a decision of its own for one episode, and the best tenth
shape the next batch. Whatever gives actions for observations is compared like any other policy.
"""

import sys

import torch
from torch import Tensor

import marec_env
from agents.baselines import build_baseline
from agents.baselines.teams import StaticTeam, hand_set_actions
from marec_env.evaluation.rollout import rollout
from marec_env.evaluation.statistics import mean_estimate
from marec_env.simulator import Simulator

AGENT = "ranking_0"


def episode_clicks(env: Simulator, decisions: Tensor, seed: int) -> Tensor:
    """Play one episode in which session b decides ``decisions[b]``; return clicks ``[B]``."""
    env.reset(seed)
    alive = torch.ones(env.num_envs, dtype=torch.bool)
    clicks = torch.zeros(env.num_envs)
    while alive.any():
        step = env.step({**env.default_actions(), AGENT: decisions})
        clicks += step.metrics["clicks"] * alive
        alive &= ~(step.terminated | step.truncated)
    return clicks


def learn(env: Simulator, generations: int, seed: int = 0) -> Tensor:
    """Return the decision that the search ends with, ``[d]``."""
    space, generator = env.action_spaces[AGENT], torch.Generator().manual_seed(seed)
    low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
    mean, spread = hand_set_actions(env)[AGENT], (high - low) / 4
    for generation in range(generations):
        noise = torch.randn(env.num_envs, len(low), generator=generator)
        decisions = torch.clamp(mean + spread * noise, low, high)
        clicks = episode_clicks(env, decisions, seed=generation)
        best = decisions[clicks.topk(max(2, env.num_envs // 10)).indices]
        mean, spread = best.mean(0), best.std(0)
        print(f"generation {generation}: {clicks.mean():.1f} clicks a session")
    return mean


def main(generations: int, sessions: int, config: object = None) -> dict[str, float]:
    """Learn, compare on the same users, and return mean clicks a session by policy."""
    env = marec_env.make_vec(config, num_sessions=sessions)
    actions = {**hand_set_actions(env), AGENT: learn(env, generations)}
    policies = {"searched": StaticTeam(actions, "searched")}
    policies |= {name: build_baseline(name, env) for name in ("random", "static")}
    found = {}
    for name, policy in policies.items():
        clicks = mean_estimate(
            rollout(env.world, policy, sessions, 7).per_session["clicks"].numpy()
        )
        print(f"{name:>10}: {clicks}")
        found[name] = clicks.value
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8, sessions=256)
