import pytest
import torch

from agents.learners import networks
from agents.learners.config import NetworkConfig
from agents.learners.networks import Critic, ValueNormaliser

value_norm = pytest.importorskip("torchrl.modules.value_norm")


def test_agrees_with_torchrl_pop_art_value_norm():
    torch.manual_seed(0)
    ours = ValueNormaliser(2)
    theirs = value_norm.PopArtValueNorm(shape=2, beta=networks._VALUE_BETA)
    for scale in (1.0, 30.0, 7.0):
        targets = scale * torch.randn(64, 5, 2) + torch.tensor([2.0, -4.0])
        ours.update(targets, torch.ones_like(targets))
        theirs.update(targets)
        probe = torch.randn(10, 2)
        torch.testing.assert_close(
            ours.normalise(probe), theirs.normalize(probe), atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(
            ours.denormalise(probe), theirs.denormalize(probe), atol=1e-4, rtol=1e-4
        )


def test_knows_nothing_before_the_first_reward():
    norm, probe = ValueNormaliser(), torch.randn(3, 1)
    assert not norm.denormalise(probe).any()
    factor, offset = norm.update(torch.zeros(4, 1), torch.ones(4, 1))
    assert not norm.denormalise(probe).any() and not norm.normalise(torch.zeros(2, 1)).any()
    assert (float(factor), float(offset)) == (1.0, 0.0)
    factor, offset = norm.update(torch.tensor([[1e-6], [3e-6]]), torch.ones(2, 1))
    assert (float(factor), float(offset)) == (1.0, 0.0)
    assert float(norm.denormalise(probe).abs().sum()) > 0


def test_weights_leave_entries_out():
    norm = ValueNormaliser(2)
    targets = torch.tensor([[1.0, 5.0], [3.0, torch.inf]])
    norm.update(targets, torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    mean, std = norm.statistics()
    torch.testing.assert_close(mean, torch.tensor([2.0, 5.0]))
    # One head saw 1 and 3; the other a single value, so its deviation rests on the floor.
    torch.testing.assert_close(std, torch.tensor([1.0, 5e-3]))


def test_a_head_without_entries_keeps_its_averages():
    norm = ValueNormaliser(2)
    norm.update(torch.tensor([[4.0, 4.0], [6.0, 6.0]]), torch.ones(2, 2))
    before = [x.clone() for x in norm.statistics()]
    factor, offset = norm.update(torch.tensor([[9.0, 9.0]]), torch.tensor([[1.0, 0.0]]))
    mean, std = norm.statistics()
    assert mean[1] == before[0][1] and std[1] == before[1][1]
    assert (float(factor[1]), float(offset[1])) == (1.0, 0.0)
    assert float(mean[0]) > float(before[0][0])


def test_a_head_that_comes_late_is_not_held_back_by_the_others():
    norm = ValueNormaliser(2)
    for _ in range(5):
        norm.update(torch.tensor([[4.0, 0.0], [6.0, 0.0]]), torch.tensor([[1.0, 0.0]] * 2))
    norm.update(torch.tensor([[4.0, 70.0], [6.0, 90.0]]), torch.ones(2, 2))
    torch.testing.assert_close(norm.statistics()[0], torch.tensor([5.0, 80.0]))


@pytest.mark.parametrize("unit", [1.0, 1e-4, 1e4])
def test_values_stay_when_the_statistics_move(unit):
    torch.manual_seed(0)
    critic, norm = Critic(3, NetworkConfig(), 2), ValueNormaliser(2)
    inputs = torch.randn(20, 3)
    norm.update(unit * torch.randn(9, 2), torch.ones(9, 2))
    for shift, spread in ((5.0, 1.0), (-3.0, 0.2), (70.0, 9.0)):
        before = norm.denormalise(critic(inputs)[0])
        targets = unit * (shift + spread * torch.randn(50, 2))
        critic.rescale(*norm.update(targets, torch.ones(50, 2)))
        after = norm.denormalise(critic(inputs)[0])
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4 * unit * 70)


def test_statistics_follow_a_thousandth_of_the_scale():
    norm = ValueNormaliser()
    targets = torch.tensor([[1.0], [3.0]])
    for _ in range(100):
        norm.update(1000.0 * targets, torch.ones(2, 1))
    updates = 0
    while float(norm.statistics()[1]) > 2.0:
        norm.update(targets, torch.ones(2, 1))
        updates += 1
    assert updates < 150
    norm.forget()
    norm.update(1e-4 * targets, torch.ones(2, 1))
    torch.testing.assert_close(norm.statistics()[1], torch.tensor([1e-4]))
