"""What is learnt does not depend on the unit of reward."""

import copy

import pytest
import torch

from agents.learners.config import HAPPOConfig, IPPOConfig, MAPPOConfig, SamplingConfig, VDNConfig
from agents.learners.engines import LocalEngine
from agents.learners.trainer import Trainer
from tests.games import MatrixGame, two_step

SAMPLING = SamplingConfig(num_sessions=8, rollout_length=5)  # episodes of two steps are cut
OWN = torch.tensor([[[5.0, 1.0], [0.0, 3.0]], [[-2.0, 1.0], [4.0, 0.5]]])


def scaled(scale, own):
    def game(n):
        if own:
            return MatrixGame(OWN * scale, n)
        made = two_step(n)
        made._payoffs = made._payoffs * scale
        return made

    return game


def weights(trainer):
    """Return all weights of all networks."""
    engine = trainer._engine
    if isinstance(engine, LocalEngine):
        nets = [one.unwrapped().net for one in engine.learner.module.values()]
    else:
        nets = [*engine._nets.values(), *engine._targets.values()]
    return torch.cat([p.detach().flatten() for net in nets for p in net.parameters()])


def learnt(algorithm, scale, own=False, iterations=3):
    trainer = Trainer(algorithm, SAMPLING, 0, scaled(scale, own))
    for _ in range(iterations):
        trainer.iterate()
    return weights(trainer)


ALGORITHMS = {
    "mappo": (MAPPOConfig(learning_rate=5e-3, critic_learning_rate=5e-3), False),
    "mappo, own rewards": (MAPPOConfig(reward="own", minibatches=2), True),
    "ippo": (IPPOConfig(target_kl=0.01), True),
    "happo": (HAPPOConfig(normalise_advantages="agent"), False),
    "vdn": (VDNConfig(minibatch_size=16, replay_size=100), False),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_weights_are_the_same_for_every_scale_of_rewards(name):
    algorithm, own = ALGORITHMS[name]
    expected = learnt(algorithm, 1.0, own)
    # Powers of two change no digit: whatever differs depends on the unit.
    for power in (-14, 14):
        assert torch.equal(learnt(algorithm, 2.0**power, own), expected), power
    for scale in (1e-4, 1e4):
        torch.testing.assert_close(learnt(algorithm, scale, own), expected, atol=1e-4, rtol=0)


def test_a_run_from_anothers_networks_does_not_mind_their_unit_of_reward():
    found = []
    for before in (1.0, 2.0**-10):
        first = Trainer(MAPPOConfig(), SAMPLING, 0, scaled(before, False))
        for _ in range(4):
            first.iterate()
        second = Trainer(MAPPOConfig(), SAMPLING, 1, scaled(2.0**5, False))
        second._engine.load_networks(copy.deepcopy(first._engine.state_dict()))
        for _ in range(4):
            second.iterate()
        found.append(weights(second))
    assert torch.equal(*found)
