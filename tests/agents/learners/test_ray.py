"""Remote runners and learners, and RLlib's stock path; all share one Ray session."""

import os
import signal
import time

import pytest
import torch

from agents.games import two_step
from agents.learners.config import MAPPOConfig, RLlibConfig, SamplingConfig
from agents.learners.trainer import Trainer
from marec_env.errors import ConfigError

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.ray

FAST = MAPPOConfig(learning_rate=5e-3, critic_learning_rate=5e-3)


@pytest.fixture(scope="module", autouse=True)
def session():
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture
def trainer():
    made = []

    def make(algorithm, **sizes):
        sampling = SamplingConfig(num_sessions=16, rollout_length=8, **sizes)
        made.append(Trainer(algorithm, sampling, 0, two_step))
        return made[-1]

    yield make
    for one in made:
        one.close()


def numbers(metrics):
    return {k: v for k, v in metrics.items() if not k.startswith("time/")}


def test_remote_runners_learn_and_continue_exactly(trainer, tmp_path):
    one = trainer(FAST, num_env_runners=2)
    for _ in range(30):
        metrics = one.iterate()
    assert metrics["episode/return"] > 6.5
    assert metrics["env_steps"] == 30 * 2 * 16 * 8
    one.save(tmp_path / "c")
    expected = numbers(one.iterate())
    one.close()
    other = trainer(FAST, num_env_runners=2)
    other.restore(tmp_path / "c")
    assert numbers(other.iterate()) == pytest.approx(expected, abs=1e-6)


def test_a_killed_runner_comes_back_and_steps_count_once(trainer):
    one = trainer(FAST, num_env_runners=2)
    one.iterate()
    group = one._engine.algorithm.env_runner_group
    pids = group.foreach_env_runner(lambda _: os.getpid(), local_env_runner=False)
    os.kill(pids[0], signal.SIGKILL)
    total, deadline = one.env_steps, time.monotonic() + 90
    while time.monotonic() < deadline:
        metrics = one.iterate()
        gained, total = one.env_steps - total, one.env_steps
        assert gained in (0, 128, 256)
        if metrics.get("healthy_runners") == 2.0 and gained == 256:
            break
        time.sleep(0.5)
    else:
        pytest.fail("the runner did not come back")


def test_remote_learners_agree(trainer):
    one = trainer(FAST, num_learners=2)
    for _ in range(3):
        metrics = one.iterate()
    assert metrics["env_steps"] == 3 * 128
    first, second = one._engine._learner_states()
    for name, tensors in first["modules"].items():
        for key, value in tensors.items():
            if "normaliser" not in key and "value_norm" not in key:
                torch.testing.assert_close(value, second["modules"][name][key])


def test_too_many_runners_are_refused_rather_than_waited_for(trainer):
    with pytest.raises(ConfigError, match="Ray has 3"):
        trainer(FAST, num_env_runners=9)


@pytest.mark.parametrize("name", ["PPO", "APPO"])
def test_stock_algorithms_run_save_and_act(name, trainer, tmp_path):
    one = trainer(RLlibConfig(name=name))
    for _ in range(3):
        metrics = one.iterate()
    assert metrics["env_steps"] > 0 and metrics["agent_steps"] == 2 * metrics["env_steps"]
    one.save(tmp_path / "c")
    observations = two_step(3).reset(0).observations
    one.close()
    other, again = trainer(RLlibConfig(name=name)), trainer(RLlibConfig(name=name))
    other.restore(tmp_path / "c")
    again.restore(tmp_path / "c")
    assert other.env_steps == metrics["env_steps"]
    expected = again.policy().act(observations)
    for agent, action in other.policy().act(observations).items():
        assert action.shape == (3,) and torch.equal(action, expected[agent])


def test_bad_stock_settings_are_named(trainer):
    with pytest.raises(ConfigError, match="did you mean 'PPO'"):
        trainer(RLlibConfig(name="PPOO"))
    with pytest.raises(ConfigError, match="did you mean 'gamma'"):
        trainer(RLlibConfig(settings={"gama": 0.9}))
