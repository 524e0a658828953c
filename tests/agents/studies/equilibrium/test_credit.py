import itertools

import numpy as np
import pytest

from agents.studies.equilibrium.credit import (
    coalitions,
    difference_rewards,
    shapley_values,
    stand_alone,
)


def _worth(n, value):
    return np.array([value(members) for members in coalitions(n)], dtype=float)


def test_shapley_equals_the_mean_over_all_orders():
    generator = np.random.default_rng(0)
    worth = generator.normal(size=16)
    index = {members: i for i, members in enumerate(coalitions(4))}
    expected = np.zeros(4)
    orders = list(itertools.permutations(range(4)))
    for order in orders:
        members = [False] * 4
        for component in order:
            before = worth[index[tuple(members)]]
            members[component] = True
            expected[component] += (worth[index[tuple(members)]] - before) / len(orders)
    assert shapley_values(worth) == pytest.approx(expected)


@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_shapley_sums_to_the_total_and_is_per_session(n):
    worth = np.random.default_rng(n).normal(size=(50, 1 << n)) * 1e3
    shares = shapley_values(worth)
    assert shares.shape == (50, n)
    assert shares.sum(axis=-1) == pytest.approx(worth[:, -1] - worth[:, 0], abs=1e-9)


def test_a_component_that_does_nothing_gets_exactly_zero():
    worth = _worth(3, lambda m: 5.0 * m[0] + 7.0 * m[0] * m[2])
    assert shapley_values(worth)[1] == 0.0
    assert difference_rewards(worth)[1] == 0.0
    assert stand_alone(worth)[1] == 0.0
    assert shapley_values(worth) == pytest.approx([8.5, 0.0, 3.5])


def test_complements_share_what_difference_rewards_count_twice():
    worth = _worth(2, lambda m: 10.0 * (m[0] and m[1]))
    assert shapley_values(worth) == pytest.approx([5.0, 5.0])
    assert difference_rewards(worth) == pytest.approx([10.0, 10.0])
    assert stand_alone(worth) == pytest.approx([0.0, 0.0])


def test_order_of_components():
    worth = _worth(3, lambda m: 1.0 * m[0] + 2.0 * m[1] + 4.0 * m[2])
    for measure in (shapley_values, difference_rewards, stand_alone):
        assert measure(worth) == pytest.approx([1.0, 2.0, 4.0])


def test_incomplete_coalitions_are_refused():
    with pytest.raises(ValueError, match="2\\^n"):
        shapley_values(np.zeros(6))
