import pytest
import torch
from torch import nn

from agents.studies.explain.team import completeness_gap, integrated_gradients


@pytest.fixture
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(7, 16), nn.Tanh(), nn.Linear(16, 3))


INPUTS = torch.randn(40, 7, generator=torch.Generator().manual_seed(2))
BASELINE = torch.randn(7, generator=torch.Generator().manual_seed(3))


def test_attributions_add_up_to_the_change_of_the_output(network):
    found = integrated_gradients(network, INPUTS, BASELINE)
    assert found.shape == (40, 3, 7)
    with torch.no_grad():
        change = network(INPUTS) - network(BASELINE)
    assert change.abs().max() > 0.5
    assert torch.allclose(found.sum(2), change, atol=1e-5)
    assert completeness_gap(network, INPUTS, BASELINE, found) < 1e-5
    assert completeness_gap(network, INPUTS, BASELINE, 0.9 * found) > 0.05


def test_a_linear_output_is_divided_exactly():
    weights = torch.tensor([[1.0, -2.0, 0.0]])
    inputs, baseline = torch.tensor([[3.0, 1.0, 9.0]]), torch.tensor([1.0, 0.0, 0.0])
    found = integrated_gradients(lambda x: x @ weights.T, inputs, baseline, steps=2)
    assert found[0, 0].tolist() == pytest.approx([2.0, -2.0, 0.0])


def test_an_output_that_ignores_its_input_gets_zeros():
    found = integrated_gradients(
        lambda x: torch.ones(x.shape[0], 1) + 0 * x[:, :1], INPUTS, BASELINE
    )
    assert found.abs().max() == 0


def test_equal_to_captum(network):
    attr = pytest.importorskip("captum.attr")
    ours = integrated_gradients(network, INPUTS, BASELINE, steps=50)
    for output in range(3):
        theirs = attr.IntegratedGradients(network).attribute(
            INPUTS, BASELINE.unsqueeze(0), target=output, n_steps=50
        )
        assert torch.allclose(ours[:, output], theirs.to(torch.float32), atol=2e-6)


def test_parts_of_a_large_batch_are_the_whole(network, monkeypatch):
    whole = integrated_gradients(network, INPUTS, BASELINE)
    monkeypatch.setattr("agents.studies.explain.team._ROWS", 150)
    assert torch.allclose(integrated_gradients(network, INPUTS, BASELINE), whole, atol=1e-6)
