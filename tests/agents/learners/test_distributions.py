import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.learners.distributions import distribution_for
from marec_env import random
from marec_env.errors import ConfigError

N = 20_000


def uniforms(lanes: int, n: int = N) -> torch.Tensor:
    return random.uniform(random.session_keys(0, torch.arange(n)), 0, "test", lanes)


def test_multi_discrete_equals_independent_categoricals():
    space = spaces.MultiDiscrete([3, 2, 5])
    d = distribution_for(space)
    inputs = torch.randn(7, d.num_inputs)
    actions = d.sample(inputs, uniforms(d.num_uniforms, 7))
    log_p, entropy = d.evaluate(inputs, actions)
    parts = [torch.distributions.Categorical(logits=x) for x in inputs.split([3, 2, 5], dim=-1)]
    expected = sum(p.log_prob(actions[:, i]) for i, p in enumerate(parts))
    torch.testing.assert_close(log_p, expected)
    torch.testing.assert_close(entropy, sum(p.entropy() for p in parts))


def test_categorical_samples_have_the_probabilities():
    d = distribution_for(spaces.Discrete(4))
    p = torch.tensor([0.5, 0.1, 0.15, 0.25])
    actions = d.sample(p.log().expand(N, 4), uniforms(1))
    frequency = torch.bincount(actions[:, 0].long(), minlength=4) / N
    assert torch.allclose(frequency, p, atol=4 * math.sqrt(0.25 / N))


def test_masked_actions_are_never_taken_and_carry_no_gradient():
    d = distribution_for(spaces.MultiDiscrete([3, 2]))
    inputs = torch.randn(N, 5, requires_grad=True)
    mask = torch.tensor([True, False, True, False, True]).expand(N, 5)
    actions = d.sample(inputs, uniforms(2), mask)
    assert set(actions[:, 0].tolist()) == {0.0, 2.0} and set(actions[:, 1].tolist()) == {1.0}
    log_p, entropy = d.evaluate(inputs, actions, mask)
    (log_p + entropy).sum().backward()
    assert float(inputs.grad[:, [1, 3]].abs().max()) == 0.0
    assert float(inputs.grad[:, [0, 2]].abs().max()) > 0.0
    # With one allowed action nothing is left to chance.
    assert float(d.evaluate(inputs[:, :], actions, mask)[1].max()) <= math.log(2) + 1e-5


def test_extreme_uniforms_stay_inside_the_space_and_the_mask():
    d = distribution_for(spaces.Discrete(3))
    edge = torch.tensor([[2.0**-24], [1 - 2.0**-24]])
    inputs = torch.zeros(2, 3)
    assert d.sample(inputs, edge)[:, 0].tolist() == [0.0, 2.0]
    mask = torch.tensor([[False, True, False]] * 2)
    assert d.sample(inputs, edge, mask)[:, 0].tolist() == [1.0, 1.0]


def test_clipped_box_is_a_gaussian_in_units_of_the_bounds():
    space = spaces.Box(np.float32([-1, 0]), np.float32([3, 10]))
    d = distribution_for(space)
    mean, log_std = torch.randn(9, 2), torch.randn(9, 2)
    inputs = torch.cat([mean, log_std], dim=-1)
    normal = torch.distributions.Normal(mean, log_std.exp())
    actions = d.sample(inputs, uniforms(2, 9))
    log_p, entropy = d.evaluate(inputs, actions)
    torch.testing.assert_close(log_p, normal.log_prob(actions).sum(-1))
    torch.testing.assert_close(entropy, normal.entropy().sum(-1))
    env = d.to_env(torch.tensor([[0.0, 0.0], [-9.0, 9.0], [1.0, 0.5]]))
    assert env.tolist() == [[1.0, 5.0], [-1.0, 10.0], [3.0, 7.5]]


def test_squashed_box_has_the_density_of_tanh():
    d = distribution_for(spaces.Box(-1.0, 1.0, (1,)), squashed=True)
    mean, log_std = torch.tensor([[0.3]]), torch.tensor([[-0.4]])
    base = torch.distributions.Normal(mean, log_std.exp())
    squashed = torch.distributions.TransformedDistribution(
        base, [torch.distributions.TanhTransform()]
    )
    draws = torch.linspace(-2, 2, 9).unsqueeze(-1)
    inputs = torch.cat([mean, log_std], dim=-1)
    log_p, _ = d.evaluate(inputs.expand(9, 2), draws)
    torch.testing.assert_close(
        log_p, squashed.log_prob(draws.tanh()).squeeze(-1), atol=1e-4, rtol=0
    )
    sample = d.sample(inputs.expand(N, 2), uniforms(1))
    entropy = float(d.evaluate(inputs, draws[:1])[1])
    monte_carlo = -float(d.evaluate(inputs.expand(N, 2), sample)[0].mean())
    assert abs(entropy - monte_carlo) < 0.02
    assert float(d.to_env(sample).abs().max()) <= 1.0


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4, start=2),
        spaces.MultiDiscrete([2, 3], start=[1, 5]),
        spaces.MultiBinary(3),
        spaces.Box(-2.0, 5.0, (3,)),
        spaces.Box(-np.inf, np.inf, (2,)),
        spaces.Tuple([spaces.Box(0.0, 1.0, (2,)), spaces.Discrete(3)]),
    ],
)
def test_env_form_lies_in_the_space_and_converts_back(space):
    d = distribution_for(space)
    inputs = 0.3 * torch.randn(5, d.num_inputs)
    flat = d.sample(inputs, uniforms(d.num_uniforms, 5)).clamp(-1.0, None)
    env = d.to_env(flat)
    for i in range(5):
        if isinstance(env, tuple):
            row = tuple(
                int(p[i]) if isinstance(s, spaces.Discrete) else p[i].numpy()
                for p, s in zip(env, space, strict=True)
            )
        else:
            row = int(env[i]) if isinstance(space, spaces.Discrete) else env[i].numpy()
            row = row.astype(space.dtype) if not isinstance(row, int) else row
        assert space.contains(row)
    torch.testing.assert_close(d.to_env(d.from_env(env)), env)


def test_tuple_adds_its_parts():
    parts = [spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(3)]
    joint = distribution_for(spaces.Tuple(parts))
    box, discrete = (distribution_for(s) for s in parts)
    inputs = torch.randn(6, joint.num_inputs)
    actions = joint.sample(inputs, uniforms(joint.num_uniforms, 6))
    log_p, entropy = joint.evaluate(inputs, actions)
    first = box.evaluate(inputs[:, :4], actions[:, :2])
    second = discrete.evaluate(inputs[:, 4:], actions[:, 2:])
    torch.testing.assert_close(log_p, first[0] + second[0])
    torch.testing.assert_close(entropy, first[1] + second[1])


def test_unsupported_spaces_are_named():
    with pytest.raises(ConfigError, match="Text"):
        distribution_for(spaces.Text(3))
    with pytest.raises(ConfigError, match="finite bounds"):
        distribution_for(spaces.Box(-np.inf, np.inf, (1,)), squashed=True)


@pytest.mark.parametrize("sizes", [[7], [2, 2], [5, 3, 4]])
def test_categorical_gradients_equal_those_of_log_softmax(sizes: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    d = distribution_for(spaces.MultiDiscrete(sizes))
    inputs = torch.randn(50, sum(sizes), dtype=torch.float64, generator=generator)
    inputs.requires_grad_()
    mask = torch.rand(50, sum(sizes), generator=generator) > 0.3
    mask[:, [sum(sizes[:i]) for i in range(len(sizes))]] = True  # one level at least stays allowed
    actions = d.sample(inputs.detach(), torch.rand(50, len(sizes), generator=generator), mask)
    weights = torch.randn(2, 50, dtype=torch.float64, generator=generator)

    def by_torch() -> tuple[torch.Tensor, torch.Tensor]:
        log_p, entropy = inputs.new_zeros(50), inputs.new_zeros(50)
        logits = torch.where(mask, inputs, -1e9)
        for part, chosen in zip(torch.split(logits, sizes, dim=-1), actions.T, strict=True):
            table = torch.log_softmax(part, dim=-1)
            log_p = log_p + table[torch.arange(50), chosen.long()]
            entropy = entropy - (table.exp() * table).sum(dim=-1)
        return log_p, entropy

    results = d.evaluate(inputs, actions, mask), by_torch()
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs)
    gradients = [torch.autograd.grad(pair, inputs, list(weights))[0] for pair in results]
    torch.testing.assert_close(gradients[0], gradients[1])
    assert not gradients[0][~mask].any()


def test_parts_have_a_mean_and_explore_more_or_less():
    family = distribution_for(spaces.Tuple([spaces.MultiDiscrete([2, 3]), spaces.Box(-1, 1, (2,))]))
    inputs = torch.tensor([[0.0, 0.0, 0.0, 50.0, 0.0, 0.3, -0.4, 9.0, 8.0]])
    assert family.expected(inputs)[0].tolist() == pytest.approx([0.5, 1.0, 0.3, -0.4])
    less = [0.0, 0.0, 0.0, 25.0, 0.0, 0.3, -0.4, 9 + math.log(2), 8 + math.log(2)]
    assert family.rescaled(inputs, 2.0)[0].tolist() == pytest.approx(less)
