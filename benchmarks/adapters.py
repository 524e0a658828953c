"""Env steps a second of each view for another library, with what the library does to them.

``python -m benchmarks.adapters [--sessions 64] [--requests 12800]`` prints one line a client: steps
with random actions through its view, and while its own PPO collects and learns; beside them the
same client on an environment it is often shown with. One step is one request of one session.
Seconds are the processor's, of which one thread is used. BenchMARL comes last, where it can be
imported (docs/other_libraries.md).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import torch
from mpe2 import simple_spread_v3
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from torchrl.envs import GymEnv

import marec_env
from examples.torchrl_team import learn
from marec_env.adapters.gym import TeamVectorEnv
from marec_env.adapters.sb3 import SB3VecEnv
from marec_env.adapters.torchrl import SessionsEnv

LENGTH = 32  # requests of a session between two updates


def told(name: str, steps: int, work: Callable[[], object]) -> None:
    """Print the rate of some steps."""
    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        work()
    print(f"{name:<36} {steps / (time.process_time() - began):>9,.0f} env steps/s", flush=True)


def gym_random(name: str, envs: Any, steps: int) -> None:
    """Random actions through a Gymnasium vector environment."""
    envs.reset(seed=0)
    rounds = steps // envs.num_envs
    told(name, steps, lambda: [envs.step(envs.action_space.sample()) for _ in range(rounds)])


def sb3(name: str, vec: Any, updates: int) -> None:
    """Stable-Baselines3's PPO."""
    size, steps = vec.num_envs * LENGTH // 4, updates * vec.num_envs * LENGTH
    model = PPO("MlpPolicy", vec, n_steps=LENGTH, batch_size=size, device="cpu")
    told(name, steps, lambda: model.learn(steps))


def alone(name: str, env: Any, steps: int = 500) -> None:
    """Random actions through a PettingZoo environment of one session."""
    env.reset(seed=0)

    def play() -> None:
        for _ in range(steps):
            if not env.agents:
                env.reset()
            env.step({agent: env.action_space(agent).sample() for agent in env.agents})

    told(name, steps, play)


def benchmarl(count: int, updates: int) -> None:
    """BenchMARL's MAPPO with its example's settings."""
    from benchmarl.algorithms import MappoConfig
    from benchmarl.experiment import Experiment, ExperimentConfig
    from benchmarl.models import MlpConfig

    from examples.benchmarl_team import settings
    from marec_env.adapters.benchmarl import PipelineTask

    frames = updates * count * LENGTH
    config = ExperimentConfig.get_from_yaml()
    plain = {"loggers": [], "create_json": False, "evaluation": False, "max_n_frames": frames}
    with tempfile.TemporaryDirectory() as place:
        for key, value in {**settings(count, LENGTH), **plain, "save_folder": place}.items():
            setattr(config, key, value)
        parts = (MappoConfig.get_from_yaml(), MlpConfig.get_from_yaml())
        experiment = Experiment(PipelineTask(), *parts, seed=0, config=config)
        told("BenchMARL MAPPO, every component", frames, experiment.run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--requests", type=int, default=12_800)
    options = parser.parse_args()
    torch.set_num_threads(1)
    count, rounds = options.sessions, options.requests // options.sessions
    steps, updates = count * rounds, max(1, rounds // LENGTH)

    def batched() -> Any:
        return marec_env.make_vec(num_sessions=count)

    plain = batched()
    plain.step(plain.default_actions())  # what is computed once
    told("make_vec, hand-set actions", steps,
         lambda: [plain.step(plain.default_actions()) for _ in range(rounds)])  # fmt: skip
    for name, agents in (("ranking_0", "ranking_0"), ("whole team", None)):
        gym_random(
            f"Gymnasium, {name}, random", TeamVectorEnv(batched(), agents, actions="box"), steps
        )
    gym_random("Gymnasium, CartPole-v1, random", gymnasium.make_vec(
        "CartPole-v1", count, vectorization_mode="sync"), steps)  # fmt: skip
    sb3("Stable-Baselines3 PPO, whole team",
        SB3VecEnv(TeamVectorEnv(batched(), actions="box")), updates)  # fmt: skip
    sb3("Stable-Baselines3 PPO, CartPole-v1", make_vec_env("CartPole-v1", count), updates)
    env = SessionsEnv(batched(), actions="box")
    env.reset()
    told("TorchRL, random", steps, lambda: env.rollout(rounds, break_when_any_done=False))
    cart = GymEnv("CartPole-v1")
    told(
        "TorchRL, CartPole-v1, random", 1000, lambda: cart.rollout(1000, break_when_any_done=False)
    )
    view = SessionsEnv(batched(), actions="box")
    told("TorchRL PPO, every component", updates * count * LENGTH,
         lambda: learn(view, updates, LENGTH))  # fmt: skip
    alone("PettingZoo, one session, random", marec_env.parallel_env())
    alone("PettingZoo, simple_spread_v3", simple_spread_v3.parallel_env())
    print(f"({count} sessions; torch {torch.__version__}, {torch.get_num_threads()} threads)")
    try:
        benchmarl(count, updates)
    except ImportError as error:
        print(f"no BenchMARL: {error}")


if __name__ == "__main__":
    main()
