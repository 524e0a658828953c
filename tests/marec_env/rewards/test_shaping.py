import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from marec_env.rewards import ShapingConfig
from marec_env.rewards.team import POTENTIALS, Shaping

GAMMA = 0.9
HEIGHT = [0.3, -2.0, 5.0, 0.7]  # an arbitrary potential over four states


def memory_at(state):
    """All that a potential and the bonus read of a memory."""
    return SimpleNamespace(state=torch.tensor([state]), num_sessions=1, device="cpu")


def height(memory):
    return torch.tensor(HEIGHT)[memory.state]


def shaping():
    config = ShapingConfig(potential=f"{__name__}:height", weight=1.0, gamma=GAMMA)
    return Shaping((config,))


def bonus(state, following, terminated=False):
    part = shaping()
    before = part.before(memory_at(state))
    return float(part.bonus(before, memory_at(following), torch.tensor([terminated])))


def test_bonus_by_hand():
    assert bonus(0, 2) == pytest.approx(0.9 * 5.0 - 0.3)
    assert bonus(0, 2, terminated=True) == pytest.approx(-0.3)


@pytest.mark.parametrize("terminated", [True, False])
def test_discounted_bonuses_telescope_to_the_start(terminated):
    path = [1, 2, 2, 0, 3]
    steps = list(itertools.pairwise(path))
    total = sum(
        GAMMA**time * bonus(a, b, terminated and time == len(steps) - 1)
        for time, (a, b) in enumerate(steps)
    )
    last = 0.0 if terminated else GAMMA ** len(steps) * HEIGHT[path[-1]]
    assert total == pytest.approx(last - HEIGHT[path[0]], abs=1e-5)


def optimal(reward, moves, ends):
    """Value iteration on a deterministic decision process; optimal actions by state."""
    states, actions = moves.shape
    value = np.zeros(states)
    for _ in range(500):
        action_value = reward + GAMMA * np.where(ends, 0.0, value[moves])
        value = action_value.max(1)
    return action_value, [
        {a for a in range(actions) if action_value[s, a] > value[s] - 1e-9} for s in range(states)
    ]


def random_process(seed):
    source = np.random.default_rng(seed)
    moves = source.integers(0, 4, (4, 3))
    ends = source.random((4, 3)) < 0.2
    reward = source.normal(size=(4, 3))
    added = np.array(
        [[bonus(s, int(moves[s, a]), bool(ends[s, a])) for a in range(3)] for s in range(4)]
    )
    return reward, added, moves, ends


@pytest.mark.parametrize("seed", range(5))
def test_optimal_policies_are_the_same_with_and_without(seed):
    reward, added, moves, ends = random_process(seed)
    plain_value, plain = optimal(reward, moves, ends)
    shaped_value, shaped = optimal(reward + added, moves, ends)
    assert shaped == plain
    assert np.allclose(shaped_value, plain_value - np.array(HEIGHT)[:, None], atol=1e-5)


def test_a_bonus_that_is_no_difference_of_potentials_does_change_them():
    changed = 0
    for seed in range(5):
        reward, added, moves, ends = random_process(seed)
        plain = optimal(reward, moves, ends)[1]
        changed += optimal(reward + np.abs(added), moves, ends)[1] != plain
    assert changed >= 3


def test_built_in_potentials_read_the_memory():
    memory = SimpleNamespace(
        slow_rate=torch.tensor([0.4]), exposure=torch.tensor([[0.1, 0.6]]), num_sessions=1
    )
    assert POTENTIALS.get("click_rate")(memory).item() == pytest.approx(0.4)
    assert POTENTIALS.get("topic_balance")(memory).item() == pytest.approx(0.4)
