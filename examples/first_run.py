"""A first run without a command line: train a team briefly, then compare it on the same users.

``python examples/first_run.py`` trains on 20,000 requests (less than a minute) and prints clicks a
session of the trained team and of three baselines, with half the 95 % interval.
"""

import sys

from agents.baselines import build_baseline
from agents.config import RunConfig
from agents.runs.environment import build_trainer
from marec_env.evaluation.rollout import rollout
from marec_env.evaluation.statistics import mean_estimate
from marec_env.simulator import Simulator
from marec_env.world import build_world


def first_run(config: RunConfig, sessions: int) -> dict[str, float]:
    """Train, evaluate, print; return mean clicks a session by policy."""
    trainer = build_trainer(config)
    try:
        steps = 0.0
        while steps < config.training.env_steps:
            metrics = trainer.iterate()
            steps = metrics["env_steps"]
            print(f"{steps:8,.0f} requests: F {metrics['team_reward']:.3f} a request")
        policies = {"trained team": trainer.policy()}
    finally:
        trainer.close()

    world = build_world(config.environment)
    for name in ("random", "popularity", "static"):
        policies[name] = build_baseline(name, Simulator(world, 1))
    found = {}
    for name, policy in policies.items():
        outcomes = rollout(world, policy, sessions, seed=config.evaluation.seed)
        clicks = mean_estimate(outcomes.per_session["clicks"].numpy())
        print(f"{name:>14}: {clicks.value:5.1f} ± {(clicks.high - clicks.low) / 2:.1f} clicks")
        found[name] = clicks.value
    return found


if __name__ == "__main__":
    budget = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    run = RunConfig.model_validate(
        {
            "sampling": {"num_sessions": 128, "rollout_length": 16},
            "training": {"env_steps": budget},
        }
    )
    first_run(run, sessions=256)
