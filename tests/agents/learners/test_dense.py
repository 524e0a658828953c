"""oneDNN's layers against torch's: equal results and gradients, and torch's where it is unfit."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from agents.learners import dense
from agents.learners.config import NetworkConfig
from agents.learners.networks import Critic


def _network(sizes: list[int], relu_last: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        layers.append(nn.Linear(inputs, outputs))
        if relu_last or index < len(sizes) - 2:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def _weights(network: nn.Sequential) -> list[tuple[Tensor, Tensor]]:
    return [(m.weight, m.bias) for m in network if isinstance(m, nn.Linear)]


@pytest.mark.parametrize("shape", [(1024,), (2048,), (5000,), (80, 32)])
@pytest.mark.parametrize("relu_last", [False, True])
@pytest.mark.parametrize("sizes", [[7, 3], [82, 64, 64, 10]])
def test_equals_torch_forward_and_backward(
    shape: tuple[int, ...], relu_last: bool, sizes: list[int]
) -> None:
    torch.manual_seed(0)
    network = _network(sizes, relu_last)
    x = torch.randn(*shape, sizes[0], requires_grad=True)
    upstream = torch.randn(*shape, sizes[-1])
    arguments = [x, *network.parameters()]
    expected = network(x)
    result = dense.affine_stack(x, _weights(network), relu_last)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    # Sums over thousands of rows: the tolerance is that of their largest entries.
    for one, other in zip(
        torch.autograd.grad(result, arguments, upstream),
        torch.autograd.grad(expected, arguments, upstream),
        strict=True,
    ):
        assert float((one - other).abs().max()) <= 1e-5 * float(other.abs().max())


def test_takes_its_own_path_for_large_batches_only(monkeypatch: pytest.MonkeyPatch) -> None:
    if not dense._usable():
        pytest.skip("no oneDNN here")
    calls: list[int] = []
    product = dense._product

    def counted(left: Tensor, right: Tensor) -> Tensor:
        calls.append(len(right))
        return product(left, right)

    monkeypatch.setattr(dense, "_product", counted)
    weights = _weights(_network([4, 3], False))
    dense.affine_stack(torch.randn(100, 4), weights, False)
    assert not calls
    dense.affine_stack(torch.randn(3000, 4), weights, False)
    assert calls == [2048, 952]


@pytest.mark.parametrize("broken", ["raises", "wrong"])
def test_falls_back_where_the_operator_is_missing_or_wrong(
    monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def product(left: Tensor, right: Tensor) -> Tensor:
        if broken == "raises":
            raise RuntimeError("no such operator")
        return left @ right.t() * 1.01

    dense._usable.cache_clear()
    monkeypatch.setattr(dense, "_product", product)
    try:
        network = _network([4, 3], True)
        x = torch.randn(2000, 4)
        result = dense.affine_stack(x, _weights(network), True)
        assert torch.equal(result, network(x))
    finally:
        dense._usable.cache_clear()


def test_double_precision_is_left_to_torch() -> None:
    network = _network([4, 3], False).double()
    x = torch.randn(2000, 4, dtype=torch.float64)
    assert torch.equal(dense.affine_stack(x, _weights(network), False), network(x))


@pytest.mark.parametrize("activation", ["relu", "tanh", "silu"])
@pytest.mark.parametrize("hidden", [(), (8,), (8, 8)])
def test_networks_compute_what_their_layers_say(activation: str, hidden: tuple[int, ...]) -> None:
    config = NetworkConfig.model_validate({"activation": activation, "hidden": hidden})
    critic = Critic(5, config)
    x = torch.randn(1500, 5)
    expected = critic.head(critic.trunk.layers(x))
    torch.testing.assert_close(critic(x)[0], expected, rtol=1e-4, atol=1e-5)
