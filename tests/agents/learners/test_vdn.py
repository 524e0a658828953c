import pytest
import torch

from agents.games import MatrixGame, two_step
from agents.learners.config import SamplingConfig, VDNConfig
from agents.learners.policy_files import load_policy
from agents.learners.trainer import Trainer
from marec_env.errors import ConfigError

SAMPLING = SamplingConfig(num_sessions=8, rollout_length=4)
CONFIG = VDNConfig(replay_size=100, minibatch_size=16, epsilon_env_steps=200)


def numbers(metrics):
    return {k: v for k, v in metrics.items() if not k.startswith("time/")}


def test_a_restored_run_continues_exactly_with_a_full_replay(tmp_path):
    one = Trainer(CONFIG, SAMPLING, 0, two_step)
    for _ in range(5):
        one.iterate()
    one.save(tmp_path / "c")
    expected = [numbers(one.iterate()) for _ in range(3)]
    other = Trainer(CONFIG, SAMPLING, 0, two_step)
    other.restore(tmp_path / "c")
    assert [numbers(other.iterate()) for _ in range(3)] == expected
    assert other._engine._replay["reward"].shape == (100,)
    one.save(tmp_path / "d")
    observations = two_step(3).reset(0).observations
    loaded = load_policy(tmp_path / "d").act(observations)
    for agent, action in one.policy().act(observations).items():
        assert torch.equal(action, loaded[agent])


def test_epsilon_falls_from_one_to_its_end():
    trainer = Trainer(CONFIG, SAMPLING, 0, two_step)
    seen = [trainer.iterate()["epsilon"] for _ in range(9)]
    assert seen[0] == 1.0 and seen == sorted(seen, reverse=True)
    assert seen[-1] == pytest.approx(0.05)


def test_the_greedy_policy_is_the_argmax_of_each_q():
    trainer = Trainer(CONFIG, SAMPLING, 0, lambda n: MatrixGame(torch.eye(3).unsqueeze(0), n))
    for _ in range(4):
        trainer.iterate()
    view = torch.ones(1, 1)
    nets = trainer._engine._nets
    for agent, action in trainer.policy().act(dict.fromkeys(nets, view)).items():
        assert int(action) == int(nets[agent].values(view).argmax())


def test_unfit_teams_are_refused(mixed_team):
    with pytest.raises(ConfigError, match="discrete actions; 'a'"):
        Trainer(CONFIG, SAMPLING, 0, mixed_team)
    remote = SAMPLING.model_copy(update={"num_env_runners": 1})
    with pytest.raises(ConfigError, match="num_env_runners"):
        Trainer(CONFIG, remote, 0, two_step)
