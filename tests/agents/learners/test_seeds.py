"""Several seeds side by side learn what each learns alone."""

from functools import partial

import pytest

from agents.learners.config import (
    CloningConfig,
    HAPPOConfig,
    IPPOConfig,
    MAPPOConfig,
    NetworkConfig,
)
from agents.learners.config import SamplingConfig as Sampling
from agents.learners.trainer import Trainer
from marec_env.env import make_vec
from marec_env.errors import RunError
from tests.worlds import small_environment

SAMPLING = Sampling(num_sessions=12, rollout_length=8)
IMPATIENT = {"users": {"patience": {"kind": "budget", "gain": 0.5, "cost": 0.25}}}
RECURRENT = NetworkConfig(hidden=(8,), recurrent_units=4)
SEEDS = (5, 0, 123_456_789)


def environment(**changes):
    return partial(make_vec, small_environment(**{**IMPATIENT, **changes}))


def curve(metrics):
    return {name: value for name, value in metrics.items() if not name.startswith("time/")}


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert two[name] == pytest.approx(value, rel=2e-3, abs=2e-4), name


@pytest.mark.parametrize(
    "algorithm",
    [
        MAPPOConfig(epochs=2, minibatches=2),
        MAPPOConfig(epochs=1, actor=RECURRENT, critic=RECURRENT),
        IPPOConfig(epochs=1, share_parameters=True),
        HAPPOConfig(epochs=1),
    ],
)
def test_seeds_side_by_side_have_the_curves_of_each_alone(algorithm):
    together = Trainer.of_seeds(algorithm, SAMPLING, SEEDS, environment())
    seen = [[curve(trainer.iterate()) for trainer in together] for _ in range(3)]
    ended = 0.0
    for place, seed in enumerate(SEEDS):
        alone = Trainer(algorithm, SAMPLING, seed, environment())
        for iteration in range(3):
            metrics = curve(alone.iterate())
            assert_same(metrics, seen[iteration][place])
            ended += metrics["episodes_ended"]
    assert ended > 3 * 12
    rewards = [metrics["team_reward"] for metrics in seen[0]]
    assert len(set(rewards)) == 3


def test_a_seed_goes_on_alone_from_what_it_saved_beside_others(tmp_path):
    algorithm = MAPPOConfig(epochs=1, actor=RECURRENT, critic=RECURRENT)
    together = Trainer.of_seeds(algorithm, SAMPLING, SEEDS, environment())
    for _ in range(2):
        for trainer in together:
            trainer.iterate()
    together[1].save(tmp_path)
    expected = [[curve(trainer.iterate()) for trainer in together] for _ in range(2)]
    alone = Trainer(algorithm, SAMPLING, SEEDS[1], environment())
    alone.restore(tmp_path)
    for iteration in range(2):
        assert_same(curve(alone.iterate()), expected[iteration][1])


def test_a_seed_that_diverges_does_not_stop_the_others():
    together = Trainer.of_seeds(MAPPOConfig(epochs=1), SAMPLING, SEEDS, environment())
    critic = together[1]._engine.learner.module["critic"].unwrapped().net
    critic.head.weight.data.fill_(float("nan"))
    first = together[0].iterate()
    with pytest.raises(RunError, match="'critic'"):
        together[1].iterate()
    assert together[2].iterate()["env_steps"] == first["env_steps"] == 96
    alone = Trainer(MAPPOConfig(epochs=1), SAMPLING, SEEDS[2], environment())
    alone.iterate()
    together[0].iterate()
    assert_same(curve(alone.iterate()), curve(together[2].iterate()))


def test_seeds_begin_as_clones():
    cloning = CloningConfig(policy=f"{__name__}:defaults", env_steps=48, epochs=1)
    algorithm = MAPPOConfig(epochs=1, cloning=cloning)
    together = Trainer.of_seeds(algorithm, SAMPLING, SEEDS[:2], environment())
    seen = [trainer.iterate() for trainer in together]
    alone = Trainer(algorithm, SAMPLING, SEEDS[1], environment())
    assert_same(curve(alone.iterate()), curve(seen[1]))
    assert any(name.startswith("clon") for name in seen[1])


def defaults(env):
    class Defaults:
        def act(self, observations):
            return env.default_actions()

    return Defaults()
