"""Requests per second of public user simulators; run by ``benchmarks/users.py --peers PYTHON``.

Runs in an environment of its own, with ``recsim`` and ``recogym`` as published on the package index
(``pip install numpy scipy pandas tqdm python-dateutil gym==0.26.2 gin-config absl-py six numba``,
then ``pip install --no-deps recsim recogym``). Both import training code that needs TensorFlow,
Dopamine or removed SciPy names; only these imports are stood in for, the simulators run unchanged.
Prints one JSON object per line.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
import types

import numpy as np


def _stand_in() -> None:
    import gin

    gin.tf = gin
    sys.modules["gin.tf"] = gin
    runner = "recsim.simulator.runner_lib"
    sys.modules[runner] = types.ModuleType(runner)
    places = importlib.util.find_spec("recogym").submodule_search_locations
    for name in ("recogym", "recogym.agents"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["recogym"].__path__ = list(places)
    sys.modules["recogym.agents"].Agent = object


def _recsim(name: str, candidates: int, slate: int, episodes: int, limit: int) -> dict:
    module = importlib.import_module(f"recsim.environments.{name}")
    settings = {
        "num_candidates": candidates,
        "slate_size": slate,
        "resample_documents": True,
        "seed": 0,
    }
    env = module.create_environment(settings)
    np.random.seed(0)  # noqa: NPY002 - recsim draws from the global generator
    rng = np.random.default_rng(0)
    returns, requests, begin = [], 0, time.process_time()
    for _ in range(episodes):
        env.reset()
        total, done, length = 0.0, False, 0
        while not done and length < limit:
            _, reward, done, _ = env.step(rng.choice(candidates, slate, replace=False))
            total, length = total + reward, length + 1
        returns.append(total)
        requests += length
    seconds = time.process_time() - begin
    return {
        "name": f"recsim {name}, slate {slate} of {candidates}",
        "per_second": requests / seconds,
        "return_mean": float(np.mean(returns)),
        "return_error": float(np.std(returns) / len(returns) ** 0.5),
    }


def _recogym(requests: int) -> dict:
    from recogym.envs.reco_env_v1 import RecoEnv1, env_1_args

    env = RecoEnv1()
    env.init_gym({**env_1_args, "random_seed": 1, "num_products": 1000})
    env.reset(0)
    env.step(None)
    rng, begin = np.random.default_rng(0), time.process_time()
    for number in range(requests):
        if env.step(int(rng.integers(1000)))[2]:
            env.reset(number)
            env.step(None)
    return {
        "name": "recogym RecoEnv1, 1 item of 1,000 (organic sessions included)",
        "per_second": requests / (time.process_time() - begin),
    }


if __name__ == "__main__":
    _stand_in()
    for found in (
        _recsim("interest_evolution", 10, 2, episodes=400, limit=10_000),
        _recsim("long_term_satisfaction", 10, 1, episodes=100, limit=60),
        _recsim("interest_exploration", 10, 2, episodes=20, limit=100),
        _recsim("interest_evolution", 1000, 10, episodes=2, limit=60),
        _recogym(2000),
    ):
        sys.stdout.write(json.dumps(found) + "\n")
