"""Stable-Baselines3 on this environment: its PPO decides for the whole team as one agent.

``python examples/stable_baselines.py RUN`` learns in the environment of a run (``python train.py
configs/quick.yaml --run-dir RUN``), records what it learned as a run's folder, and compares the
two. ``evaluate.py run RUN --baselines examples.stable_baselines:trained`` sets it into the table of
any run.
"""

import sys
from pathlib import Path

from stable_baselines3 import PPO

import marec_env
from agents import record_policy
from agents.commands.compare import command as compare
from marec_env.adapters.gym import TeamVectorEnv
from marec_env.adapters.sb3 import SB3VecEnv
from marec_env.evaluation.policies import TeamPolicy
from marec_env.rewards.config import DISCOUNT
from marec_env.simulator import Simulator

MODEL = Path("runs/stable-baselines.zip")


def view(simulator: Simulator) -> TeamVectorEnv:
    """Return all components as one agent whose actions are numbers in [-1, 1]."""
    return TeamVectorEnv(simulator, actions="box")


def trained(simulator: Simulator, seed: int) -> TeamPolicy:
    """Return the team that was learned here (a baseline's factory)."""
    model = PPO.load(MODEL, device="cpu")
    return view(simulator).policy(lambda seen: model.predict(seen, deterministic=True)[0])


def main(
    run: str, requests: int = 200_000, seed: int = 0, sessions: int = 64, length: int = 32
) -> Path:
    """Learn in a run's environment, and return the folder of what was learned."""
    simulator = marec_env.make_vec(f"{run}/config.yaml", num_sessions=sessions)
    settings = {"n_steps": length, "batch_size": sessions * length // 4, "gamma": DISCOUNT}
    envs = SB3VecEnv(view(simulator))
    model = PPO("MlpPolicy", envs, seed=seed, device="cpu", verbose=1, **settings)
    model.learn(requests)
    model.save(MODEL)
    folder = record_policy(
        trained(simulator, seed), f"{run}/config.yaml", "sb3-ppo", requests, seed=seed,
        settings={**settings, "sessions": sessions},
    )  # fmt: skip
    compare([Path(run), folder], output=folder / "comparison")
    return folder


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
