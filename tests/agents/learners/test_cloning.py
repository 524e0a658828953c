import pytest
import torch

from agents.learners.config import CloningConfig, MAPPOConfig, NetworkConfig, SamplingConfig
from agents.learners.trainer import Trainer
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError, RunError
from marec_env.simulator import Simulator
from marec_env.world import build_world
from tests.games import two_step
from tests.worlds import small_environment


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


def test_a_team_of_the_pipeline_starts_where_it_was_set_by_hand():
    world = build_world(EnvironmentConfig.model_validate(small_environment()))
    config = CloningConfig(
        policy="agents.baselines.teams:hand_set", env_steps=64, epochs=60, learning_rate=3e-3
    )
    sampling = SamplingConfig(num_sessions=8, rollout_length=2)
    trainer = Trainer(
        MAPPOConfig(cloning=config), sampling, 0, lambda sessions: Simulator(world, sessions)
    )
    trainer.iterate()
    simulator = Simulator(world, 3)
    simulator.reset(5)
    defaults = simulator.default_actions()
    found = trainer.policy().act({agent: simulator.observe(agent) for agent in simulator.agents})
    assert torch.equal(found["recall_0"], defaults["recall_0"])
    assert (found["ranking_0"] - defaults["ranking_0"]).abs().max() < 0.2
    assert (defaults["ranking_0"].abs().amax(1) > 0.3).all()  # which is not where nobody began


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
