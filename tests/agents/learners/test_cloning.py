import pytest
import torch

from agents.learners.config import CloningConfig, MAPPOConfig, NetworkConfig, SamplingConfig
from agents.learners.trainer import Trainer
from marec_env.errors import ConfigError, RunError
from tests.games import two_step


class Best:
    """Plays the two-step game's optimum: B, then the second action twice."""

    def act(self, observations):
        return {a: torch.ones(len(x), dtype=torch.int64) for a, x in observations.items()}


def best(env):
    assert env.agents == ("player_0", "player_1")
    return Best()


HERE = "tests.agents.learners.test_cloning:best"
SAMPLING = SamplingConfig(num_sessions=16, rollout_length=4)


@pytest.mark.parametrize("share", [False, True])
def test_cloned_actors_start_where_the_demonstrator_stands(share):
    config = CloningConfig(policy=HERE, env_steps=400, epochs=20, minibatch_size=64)
    trainer = Trainer(MAPPOConfig(cloning=config, share_parameters=share), SAMPLING, 0, two_step)
    first = trainer.iterate()
    assert first["episode/return"] > 7.5
    likelihoods = [v for k, v in first.items() if k.startswith("cloning/")]
    assert min(likelihoods) > -0.1
    assert not any(k.startswith("cloning/") for k in trainer.iterate())


def test_without_cloning_the_start_is_random():
    assert Trainer(MAPPOConfig(), SAMPLING, 0, two_step).iterate()["episode/return"] < 6.5


def test_recurrent_actors_are_refused():
    config = MAPPOConfig(cloning=CloningConfig(policy=HERE), actor=NetworkConfig(recurrent_units=4))
    with pytest.raises(ConfigError, match="recurrent"):
        Trainer(config, SAMPLING, 0, two_step).iterate()


def test_a_restored_run_does_not_clone_again(tmp_path):
    config = MAPPOConfig(cloning=CloningConfig(policy=HERE, env_steps=64, epochs=2))
    one = Trainer(config, SAMPLING, 0, two_step)
    one.iterate()
    one.save(tmp_path / "c")
    expected = one.iterate()
    other = Trainer(config, SAMPLING, 0, two_step)
    other.restore(tmp_path / "c")
    got = other.iterate()
    assert got["policy_loss/player_0"] == expected["policy_loss/player_0"]
    assert "cloning/log_likelihood/player_0" not in got


def test_diverged_cloning_is_said():
    config = CloningConfig(policy=HERE, env_steps=100, learning_rate=1e30)
    trainer = Trainer(MAPPOConfig(cloning=config), SAMPLING, 0, two_step)
    with pytest.raises(RunError, match=r"cloning diverged.*player_0.*learning_rate"):
        trainer.iterate()
