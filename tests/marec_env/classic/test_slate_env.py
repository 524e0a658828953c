"""The Gymnasium slate environment, single and vectorised."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from marec_env.classic import SlateEnv, SlateVectorEnv
from marec_env.errors import ConfigError


@pytest.mark.parametrize("preset", ["marec", "recsim/interest_evolution", "kuaisim/session"])
def test_gymnasium_accepts_it(preset: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unbounded observations are meant
        check_env(gymnasium.make("marec/slate-v0", preset=preset).unwrapped)


def _vector(count: int, **arguments) -> SlateVectorEnv:
    envs = gymnasium.make_vec("marec/slate-v0", num_envs=count, **arguments)
    assert isinstance(envs.unwrapped, SlateVectorEnv)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    return envs


def test_one_environment_is_the_first_of_many() -> None:
    arguments = {"preset": "recsim/interest_evolution", "horizon": 7}
    envs, env = _vector(5, **arguments), gymnasium.make("marec/slate-v0", **arguments)
    many, _ = envs.reset(seed=4)
    one, info = env.reset(seed=4)
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(30):
        np.testing.assert_array_equal(many[0], one)
        actions = rng.integers(0, 10, (5, 2))
        many, rewards, terminated, truncated, infos = envs.step(actions)
        one, reward, end, cut, info = env.step(actions[0])
        assert (rewards[0], terminated[0], truncated[0]) == (reward, end, cut)
        if end or cut:
            np.testing.assert_array_equal(infos["final_obs"][0], one)
            one, info = env.reset()
            ends += 1
        np.testing.assert_array_equal(infos["candidates"][0], info["candidates"])
    assert ends == 4


def test_episodes_end_by_themselves_and_by_the_horizon() -> None:
    envs = _vector(64, preset="kuaisim/session")
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    ended, cut = np.zeros(64, dtype=bool), np.zeros(64, dtype=bool)
    for _ in range(25):
        _, _, terminated, truncated, _ = envs.step(rng.integers(0, 1000, (64, 6)))
        assert not (terminated & truncated).any()
        ended |= terminated
        cut |= truncated
    assert ended.all()
    assert not cut.any()
    short = _vector(3, preset="marec", horizon=2)
    short.reset(seed=0)
    actions = np.zeros((3, 10), dtype=int)
    assert not short.step(actions)[3].any()
    assert short.step(actions)[3].all()


def test_privileged_adds_the_hidden_state() -> None:
    plain, rich = SlateEnv("marec"), SlateEnv("marec", privileged=True)
    difference = rich.observation_space.shape[0] - plain.observation_space.shape[0]
    assert difference == 2 * 32 + 16 + 3


def test_wrong_actions_and_sizes_are_refused() -> None:
    env = SlateEnv("marec")
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=r"actions hold 0 \.\.\. 1000; allowed: 0 \.\.\. 999"):
        env.step(np.array([0] * 9 + [1000]))
    with pytest.raises(ConfigError, match="actions have shape"):
        env.step(np.zeros(3, dtype=int))
    with pytest.raises(ConfigError, match="slate_size is 11"):
        SlateEnv("sardine/SlateRerank-Static", slate_size=11)
    with pytest.raises(ConfigError, match="horizon is 0"):
        SlateEnv("marec", horizon=0)
