"""Remote runners and learners, and RLlib's stock path; all share one Ray session."""

import os
import signal
import socket
import threading
import time

import pytest
import torch

from agents.config import RunConfig
from agents.learners import ray_session
from agents.learners.config import MAPPOConfig, RLlibConfig, SamplingConfig
from agents.learners.trainer import Trainer
from agents.runs.environment import make_environment, run_world
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError, RunError
from marec_env.simulator import Simulator
from marec_env.world import build_world
from tests.games import two_step
from tests.worlds import small_environment

ray = pytest.importorskip("ray")
from ray.util.placement_group import placement_group, remove_placement_group  # noqa: E402

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


def test_remote_runners_learn_continue_exactly_and_come_back_when_killed(trainer, tmp_path):
    """All in one test, as two runners take a quarter of a minute to start."""
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

    # Steps count once, also those of a runner that is killed.
    group = other._engine.algorithm.env_runner_group
    pids = group.foreach_env_runner(lambda _: os.getpid(), local_env_runner=False)
    os.kill(pids[0], signal.SIGKILL)
    total, gained = other.env_steps, 0
    while metrics.get("healthy_runners") != 2.0 or gained != 256:
        time.sleep(0.5)
        metrics = other.iterate()
        gained, total = other.env_steps - total, other.env_steps
        assert gained in (0, 128, 256)


def test_remote_learners_agree(trainer):
    one = trainer(FAST, num_learners=2)
    for _ in range(2):
        metrics = one.iterate()
    assert metrics["env_steps"] == 2 * 128
    first, second = one._engine._each_learner(lambda one: one.training_state())
    for name, tensors in first["modules"].items():
        for key, value in tensors.items():
            if "normaliser" not in key:
                torch.testing.assert_close(value, second["modules"][name][key])


@pytest.mark.parametrize("algorithm", [FAST, RLlibConfig()], ids=["mappo", "rllib"])
@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"num_env_runners": 9}, "num_env_runners .* needs 9 CPUs, but Ray has 3"),
        ({"num_env_runners": 10**9}, "Ray has 3"),
        ({"num_learners": 1, "gpus_per_learner": 8}, "gpus_per_learner needs 8 GPUs, but Ray has"),
        ({"gpus_per_learner": 8}, "gpus_per_learner is 8, but PyTorch finds"),
        ({"num_env_runners": 1, "gpus_per_learner": 8}, "gpus_per_learner is 8"),
    ],
)
def test_what_ray_does_not_have_is_refused_rather_than_waited_for(trainer, algorithm, sizes, told):
    with pytest.raises(ConfigError, match=told):
        trainer(algorithm, **sizes)


def test_what_others_hold_is_waited_for_so_long(trainer, monkeypatch):
    monkeypatch.setattr(ray_session, "_RESERVE", 0.5)
    held = placement_group([{"CPU": 2}])
    assert held.wait(200)
    try:
        with pytest.raises(ConfigError, match=r"found no room for sampling.num_env_runners=2"):
            trainer(FAST, num_env_runners=2)
    finally:
        remove_placement_group(held)


@pytest.mark.parametrize(
    ("address", "told"),
    [("127.0.0.1:1", "refused"), ("nonsense", "Invalid"), ("127.0.0.1:{port}", "no answer in 3")],
)
def test_an_address_without_ray_is_told_in_time(monkeypatch, address, told):
    """Also one that accepts connections and never answers."""
    monkeypatch.setattr(ray_session, "_JOIN", 3.0 if "{" in address else 200.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = address.format(port=silent.getsockname()[1])
        with pytest.raises(RunError, match=f"sampling.ray_address '{place}'.*{told}"):
            ray_session._try_address(place)


def test_that_ray_does_not_start_here_is_told(monkeypatch):
    def late(**_):
        raise Exception("The current node timed out\nduring startup.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", late)
    with pytest.raises(RunError, match=r"cannot start Ray here: .*timed out during startup\.; oth"):
        ray_session.start_ray(SamplingConfig())


def test_a_process_of_rays_that_dies_is_told(monkeypatch):
    monkeypatch.setattr(ray_session, "_EVERY", 0.05)
    died, told = [], threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        class Context:
            gcs_address = f"127.0.0.1:{port}"

            def get_node_id(self):
                return "other"

        monkeypatch.setattr(ray, "get_runtime_context", Context)
        with ray_session.watch_ray(lambda name: (died.append(name), told.set())):
            assert not told.wait(0.3)
            server.close()
            assert told.wait(200)
    assert died == [f"gcs_server at 127.0.0.1:{port}"]


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
    with pytest.raises(ConfigError, match="num_env_runners"):  # set by sampling, not by training()
        trainer(RLlibConfig(settings={"num_env_runners": 2}))
    with pytest.raises(ConfigError, match="kl_coeff has no effect where use_kl_loss is false"):
        trainer(RLlibConfig(settings={"use_kl_loss": False, "kl_coeff": 0.1}))


def test_item_shards_in_actors_give_the_same_slates_and_say_when_one_has_died():
    configs = []
    for shards in (1, 2):
        pipeline = {"candidates": 20, "slate_size": 5, "recall": {"shards": shards}}
        section = small_environment(pipeline=pipeline)
        configs.append(EnvironmentConfig.model_validate(section, strict=False))
    worlds = [build_world(config) for config in configs]
    parts = worlds[1].knowledge.shards
    assert parts.bounds == (0, 150, 300) and worlds[1].catalog.text.is_meta
    whole, divided = (Simulator(world, 8) for world in worlds)
    for _ in range(5):
        for env in (whole, divided):
            env.step(env.default_actions())
        assert torch.equal(whole.last.slate, divided.last.slate)
    ray.kill(parts.host.actors[1])
    with pytest.raises(RunError, match=r"item shard 2 of 2 \(pipeline.recall.shards\) has died"):
        divided.step(divided.default_actions())
    again = build_world(configs[1])  # not the world whose part is lost
    anew = Simulator(again, 8)
    anew.step(anew.default_actions())
    assert build_world(configs[1]).knowledge is again.knowledge


def test_item_shards_lie_in_the_cluster_that_the_run_names(monkeypatch):
    def asked(sampling: SamplingConfig) -> None:
        raise RunError(f"asked for {sampling.ray_address}")

    monkeypatch.setattr(ray_session, "start_ray", asked)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    settings = {
        "environment": {"kind": "marec", "pipeline": {"recall": {"shards": 2}}},
        "sampling": {"ray_address": "10.0.0.1:6379"},
    }
    config = RunConfig.model_validate(settings)
    for make in (run_world, lambda config: make_environment(config, 1)):
        with pytest.raises(RunError, match=r"asked for 10\.0\.0\.1:6379"):
            make(config)


def test_resources_are_not_asked_for_again_once_a_run_holds_them(monkeypatch):
    def asked(sampling: SamplingConfig) -> None:
        raise AssertionError(sampling)

    monkeypatch.setattr(ray_session, "start_ray", asked)
    pipeline = {"candidates": 20, "slate_size": 5, "recall": {"shards": 2}}
    settings = {
        "environment": {"kind": "marec", **small_environment(pipeline=pipeline)},
        "sampling": {"num_learners": 2},
    }
    world = run_world(RunConfig.model_validate(settings, strict=False))
    assert world.knowledge.shards is not None


def test_item_shards_are_refused_where_others_would_build_them_too():
    recall = {"pipeline": {"recall": {"shards": 2}}}
    settings = {"environment": {"kind": "marec", **recall}, "sampling": {"num_env_runners": 1}}
    with pytest.raises(ValueError, match=r"shards is 2 and sampling.num_env_runners 1"):
        RunConfig.model_validate(settings)
