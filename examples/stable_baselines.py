"""Stable-Baselines3 on this environment: its PPO decides for the whole team as one agent.

``python examples/stable_baselines.py RUN`` learns in the environment of a run (``python train.py
configs/quick.yaml --run-dir RUN``) and prints its evaluation with what was learned, on the same
users: ``evaluate.py run RUN --baselines examples.stable_baselines:trained`` does so for any run.
"""

import sys
from pathlib import Path

from stable_baselines3 import PPO

import marec_env
from agents.commands.evaluate import command as evaluate
from agents.runs.trained import load_run
from marec_env.adapters.gym import TeamVectorEnv
from marec_env.adapters.sb3 import SB3VecEnv
from marec_env.evaluation.policies import TeamPolicy
from marec_env.simulator import Simulator

MODEL = Path("runs/stable-baselines.zip")


def view(simulator: Simulator) -> TeamVectorEnv:
    """Return all components as one agent whose actions are numbers in [-1, 1]."""
    return TeamVectorEnv(simulator, actions="box")


def trained(simulator: Simulator, seed: int) -> TeamPolicy:
    """Return the team that was learned here (a baseline's factory)."""
    model = PPO.load(MODEL, device="cpu")
    return view(simulator).policy(lambda seen: model.predict(seen, deterministic=True)[0])


def main(run: str, requests: int = 200_000, sessions: int = 64, length: int = 32) -> None:
    """Learn in a run's environment, and print the run's evaluation with what was learned."""
    simulator = marec_env.make_vec(load_run(Path(run)).environment, num_sessions=sessions)
    model = PPO(
        "MlpPolicy",
        SB3VecEnv(view(simulator)),
        n_steps=length,
        batch_size=sessions * length // 4,
        ent_coef=0.001,
        seed=0,
        device="cpu",
        verbose=1,
    )
    model.learn(requests)
    model.save(MODEL)
    evaluate([Path(run)], baselines=f"{__name__}:trained,random,static")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
