import copy
import dataclasses
import os
import subprocess
import sys

import numpy as np
import pettingzoo
import pytest
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test
from pettingzoo.test.state_test import test_parallel_env as parallel_state_test
from pettingzoo.test.state_test import test_state_space as state_space_test
from pettingzoo.utils import parallel_to_aec

import marec_env
from marec_env import pipeline_v0
from marec_env.errors import ConfigError

SMALL = {"embeddings": {"encoder": "hashing", "reduction": {"dimension": 8}}}


@pytest.fixture(scope="module")
def env():
    return marec_env.parallel_env(SMALL)


def test_registered_under_its_id_and_as_a_module():
    made = pettingzoo.make("parallel", marec_env.PIPELINE_ID, config=SMALL)
    assert made.unwrapped.possible_agents == ["profile_0", "recall_0", "feature_0", "ranking_0"]
    assert pipeline_v0.parallel_env(SMALL).possible_agents == made.unwrapped.possible_agents


def test_parallel_conformance(env):
    parallel_api_test(env, num_cycles=100)
    parallel_state_test(env)
    state_space_test(parallel_to_aec(env))


def test_parallel_seeds():
    parallel_seed_test(lambda: marec_env.parallel_env(SMALL))


def test_aec_conformance():
    api_test(marec_env.aec_env(SMALL), num_cycles=100)
    api_test(parallel_to_aec(marec_env.parallel_env(SMALL)), num_cycles=100)
    seed_test(lambda: marec_env.aec_env(SMALL), num_cycles=10)


EPISODE = """
import hashlib, numpy as np, marec_env
env = marec_env.parallel_env({"embeddings": {"encoder": "hashing", "reduction": {"dimension": 8}}})
observations, _ = env.reset(seed=5)
for space in env.action_spaces.values():
    space.seed(1)
digest = hashlib.sha256()
while env.agents:
    actions = {agent: env.action_space(agent).sample() for agent in env.agents}
    observations, rewards, *_ = env.step(actions)
    for agent in env.possible_agents:
        digest.update(observations[agent].tobytes())
        digest.update(np.float64(rewards[agent]).tobytes())
    digest.update(env.state().tobytes())
print(digest.hexdigest())
"""


def test_a_full_episode_is_equal_in_two_processes_with_different_hash_seeds():
    digests = {
        subprocess.run(
            [sys.executable, "-c", EPISODE],
            env={**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 64


def test_episodes_without_a_seed_differ_and_can_be_repeated(env):
    def first_observations():
        seen = [env.reset(seed=3)[0]["profile_0"]]
        return [*seen, env.reset()[0]["profile_0"], env.reset()[0]["profile_0"]]

    one, two = first_observations(), first_observations()
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not np.array_equal(one[0], one[1])


def test_misuse_is_named(env):
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="no action for recall_0"):
        env.step({a: env.action_space(a).sample() for a in env.agents if a != "recall_0"})
    actions = {a: env.action_space(a).sample() for a in env.agents}
    with pytest.raises(ConfigError, match="ranking_0: action holds numbers that are not finite"):
        env.step({**actions, "ranking_0": np.full(8, np.nan, np.float32)})
    with pytest.raises(ConfigError, match=r"profile_0: action has shape \[1, 2\]; needed"):
        env.step({**actions, "profile_0": np.zeros(2, np.float32)})
    with pytest.raises(ConfigError, match=r"choices outside 0 \.\.\. 1"):
        env.step({**actions, "feature_0": np.full(6, 3)})


@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
def test_rendering_shows_the_funnel(mode):
    env = marec_env.parallel_env(SMALL, render_mode=mode)
    env.reset(seed=0)
    env.step({a: env.action_space(a).sample() for a in env.agents})
    picture = env.render()
    if mode == "ansi":
        shown = env.simulator.last.slate[0].tolist()
        titles = env.simulator.world.catalog.titles
        assert all(titles[item][:20] in picture for item in shown)
        assert "the user" in picture
    else:
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert picture.std() > 0


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("loud", "not made of numbers"),
        (None, "not made of numbers"),
        ([[1], [1, 2]], "not made of numbers"),
        ([1.7] * 7, "not made of whole numbers"),
    ],
)
def test_actions_that_are_no_numbers_are_refused(env, action, message):
    env.reset(seed=0)
    actions = {agent: env.action_space(agent).sample() for agent in env.agents}
    with pytest.raises(ConfigError, match=message):
        env.step({**actions, "recall_0": action})


def test_half_of_a_paired_action_is_refused():
    env = marec_env.parallel_env({**SMALL, "pipeline": {"messages": {"kind": "learned"}}})
    env.reset(seed=0)
    actions = {agent: env.action_space(agent).sample() for agent in env.agents}
    with pytest.raises(ConfigError, match="no tuple of 2 batches"):
        env.step({**actions, "recall_0": (actions["recall_0"][0],)})


def test_a_seed_that_is_refused_leaves_the_sequence_of_episodes():
    one, two = (marec_env.parallel_env(SMALL) for _ in range(2))
    for env in (one, two):
        env.reset(seed=3)
    with pytest.raises(ConfigError, match="is no integer"):
        one.reset(seed=1.5)
    for env in (one, two):
        env.reset()
    assert np.array_equal(one.state(), two.state())


def test_a_mapping_with_errors_names_each_in_a_line():
    with pytest.raises(ConfigError) as caught:
        marec_env.make_vec({"pipelin": {}, "max_requests": 0})
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert any("did you mean 'pipeline'" in line for line in lines)
    assert any("max_requests" in line for line in lines)


@pytest.mark.parametrize("mode", ["rgb_array", "ansi"])
def test_any_titles_are_drawn_and_do_nothing(mode):
    env = marec_env.parallel_env(SMALL, render_mode=mode)
    env.reset(seed=0)
    world = env.simulator.world
    titles = tuple(f"Win $5^^ now, ${n} \x1b[2J\ud800" for n in range(len(world.catalog.titles)))
    env.simulator.world = dataclasses.replace(
        world, catalog=dataclasses.replace(world.catalog, titles=titles)
    )
    env.step({agent: env.action_space(agent).sample() for agent in env.agents})
    picture = env.render()
    if mode == "ansi":
        assert r"\x1b[2J" in picture and "\x1b" not in picture
        picture.encode()
    else:
        assert picture.ndim == 3


def test_an_environment_can_be_copied():
    env = marec_env.parallel_env(SMALL)
    env.reset(seed=0)
    again = copy.deepcopy(env)
    actions = {agent: env.action_space(agent).sample() for agent in env.agents}
    assert env.step(actions)[1] == again.step(actions)[1]
