import pytest
import torch

from agents.learners.networks import ValueNormaliser

value_norm = pytest.importorskip("torchrl.modules.value_norm")


def test_agrees_with_torchrl_pop_art_value_norm():
    torch.manual_seed(0)
    ours, theirs = ValueNormaliser(2), value_norm.PopArtValueNorm(shape=2)
    for scale in (1.0, 30.0, 7.0):
        targets = scale * torch.randn(64, 5, 2) + torch.tensor([2.0, -4.0])
        ours.update(targets, torch.ones_like(targets))
        theirs.update(targets)
        probe = torch.randn(10, 2)
        torch.testing.assert_close(
            ours.normalise(probe), theirs.normalize(probe), atol=1e-5, rtol=1e-5
        )
        torch.testing.assert_close(
            ours.denormalise(probe), theirs.denormalize(probe), atol=1e-5, rtol=1e-5
        )


def test_is_the_identity_before_the_first_update():
    probe = torch.randn(3, 1)
    assert torch.equal(ValueNormaliser().normalise(probe), probe)


def test_weights_leave_entries_out():
    norm = ValueNormaliser(2)
    targets = torch.tensor([[1.0, 5.0], [3.0, 1e6]])
    norm.update(targets, torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    mean, std = norm.statistics()
    torch.testing.assert_close(mean, torch.tensor([2.0, 5.0]))
    # One head saw 1 and 3; the other a single value, so its variance rests on the floor.
    torch.testing.assert_close(std, torch.tensor([1.0, 0.1]), atol=2e-3, rtol=0)


def test_a_head_without_entries_keeps_its_averages():
    norm = ValueNormaliser(2)
    norm.update(torch.tensor([[4.0, 4.0], [6.0, 6.0]]), torch.ones(2, 2))
    before = [x.clone() for x in norm.statistics()]
    norm.update(torch.tensor([[9.0, 9.0]]), torch.tensor([[1.0, 0.0]]))
    mean, std = norm.statistics()
    torch.testing.assert_close(mean[1], before[0][1])
    torch.testing.assert_close(std[1], before[1][1])
    assert float(mean[0]) > float(before[0][0])
