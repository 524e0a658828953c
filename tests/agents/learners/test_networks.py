import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.learners.config import NetworkConfig
from agents.learners.networks import Actor, Critic, RunningNormaliser

BOX = spaces.Box(-np.inf, np.inf, (6,), np.float32)


@pytest.mark.parametrize("space", [spaces.Discrete(5), spaces.MultiDiscrete([4, 3, 2])])
def test_first_policies_are_near_uniform(space):
    torch.manual_seed(0)
    actor = Actor(BOX, space, NetworkConfig())
    inputs, _ = actor(torch.randn(100, 6))
    actions = actor.distribution.mode(inputs)
    _, entropy = actor.distribution.evaluate(inputs, actions)
    sizes = [5] if isinstance(space, spaces.Discrete) else [4, 3, 2]
    assert float(entropy.min()) >= 0.99 * sum(map(math.log, sizes))


def test_hidden_layers_are_orthogonal():
    layer = Actor(BOX, spaces.Discrete(2), NetworkConfig(hidden=(6,))).trunk.layers[0]
    gram = layer.weight @ layer.weight.T
    torch.testing.assert_close(gram, 2.0 * torch.eye(6))


def test_uniform_weights_are_those_of_torchs_layers():
    config = NetworkConfig(hidden=(6, 4), recurrent_units=3, initial_weights="uniform")
    torch.manual_seed(0)
    made = Actor(BOX, spaces.Discrete(2), config)
    torch.manual_seed(0)
    expected = [torch.nn.Linear(6, 6), torch.nn.Linear(6, 4), torch.nn.GRUCell(4, 3)]
    expected.append(torch.nn.Linear(3, 2))
    found = [made.trunk.layers[0], made.trunk.layers[2], made.trunk.cell, made.head]
    for one, other in zip(found, expected, strict=True):
        for name, weights in other.state_dict().items():
            torch.testing.assert_close(one.state_dict()[name], weights, rtol=0, atol=0)


def test_normaliser_has_the_moments_of_everything_seen():
    data = np.random.default_rng(0).normal(3.0, 5.0, (90, 2))
    normaliser = RunningNormaliser(2)
    for part in np.array_split(data, 7):
        normaliser.update(torch.tensor(part, dtype=torch.float32))
    out = normaliser(torch.tensor(data, dtype=torch.float32))
    expected = (data - data.mean(axis=0)) / data.std(axis=0)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-4)


def test_constant_inputs_stay_finite():
    normaliser = RunningNormaliser(1)
    normaliser.update(torch.full((5, 1), 2.0))
    assert normaliser(torch.full((1, 1), 2.0)).item() == 0.0
    assert normaliser(torch.full((1, 1), 3.0)).item() == 1.0


def test_sequences_equal_single_steps_and_forget_at_starts():
    torch.manual_seed(0)
    config = NetworkConfig(hidden=(8,), recurrent_units=5)
    actor, critic = Actor(BOX, spaces.Discrete(3), config), Critic(6, config, 2)
    inputs, starts = torch.randn(4, 7, 6), torch.rand(4, 7) < 0.3
    memory = torch.randn(4, 5)
    whole, _ = actor.decide(actor.trunk.normalise(inputs), memory, starts=starts)
    values, _ = critic(inputs, memory, starts)
    m = c = memory
    for t in range(7):
        m = m * (~starts[:, t, None]).float()
        c = c * (~starts[:, t, None]).float()
        step, m = actor(inputs[:, t], m)
        value, c = critic(inputs[:, t], c)
        torch.testing.assert_close(whole[:, t], step)
        torch.testing.assert_close(values[:, t], value)


def test_a_tuple_of_boxes_keeps_means_and_stds_in_place():
    space = spaces.Tuple([spaces.Box(-1, 1, (2,)), spaces.Discrete(3), spaces.Box(-1, 1, (1,))])
    actor = Actor(BOX, space, NetworkConfig(), initial_log_std=-0.7)
    inputs, _ = actor(torch.randn(3, 6))
    assert inputs.shape == (3, 9)
    assert torch.all(inputs[:, [2, 3, 8]] == -0.7)
    assert torch.all(inputs[:, [0, 1, 4, 5, 6, 7]].abs() < 0.2)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_an_agents_number_enters_beside_what_it_sees(activation):
    torch.manual_seed(1)
    config = NetworkConfig(hidden=(8, 5), activation=activation)
    actor = Actor(BOX, spaces.Discrete(3), config, num_agents=4)
    for layer in (actor.trunk.layers[0], actor.trunk.layers[2], actor.head):
        torch.nn.init.normal_(layer.weight)
        torch.nn.init.normal_(layer.bias)
    observations = torch.randn(6, 6)
    outputs = []
    for number in range(4):
        agent_id = actor.agent_id(number, (6,), torch.device("cpu"))
        assert agent_id.tolist() == [[float(place == number) for place in range(4)]] * 6
        features = torch.cat([actor.trunk.normalise(observations), agent_id], dim=-1)
        for place in (0, 2):
            layer = actor.trunk.layers[place]
            features = getattr(torch, activation)(features @ layer.weight.T + layer.bias)
        expected = features @ actor.head.weight.T + actor.head.bias
        found, memory = actor(observations, None, number)
        assert memory is None
        torch.testing.assert_close(found, expected)
        outputs.append(found)
    assert not torch.allclose(outputs[0], outputs[1])
