"""The plan against brute force, and the oracle that follows it."""

from __future__ import annotations

import itertools

import pytest
import torch

from marec_env import random
from marec_env.classic.populations import synthetic_population
from marec_env.classic.rollout import play
from marec_env.users.config import NoPatience, ThresholdBoredom, UsersConfig
from marec_env.users.modules import ExposureBoredom
from marec_env.users.oracles import AHEAD, best_counts, farsighted_slate, myopic_slate, plan_values
from marec_env.users.registry import make_users
from tests.marec_env.users.conftest import shown_items, small_population


def test_boredom_ahead_is_what_repeating_the_slate_brings() -> None:
    config = ThresholdBoredom(memory=0.75, threshold=0.1, saturation=0.5)
    boredom = ExposureBoredom(UsersConfig(boredom=config), small_population(topics=2), 1)
    boredom.update(shown_items(torch.tensor([[0, 0, 0, 1]])))
    ahead = boredom.ahead(torch.tensor([0.0, 1.0, 4.0]), 4, torch.tensor([0.0, 3.0]))
    assert torch.allclose(ahead[:, :, :, 0], boredom.level().unsqueeze(2).expand(1, 2, 3))
    for _ in range(3):
        boredom.update(shown_items(torch.tensor([[0, 0, 0, 0]])))
    assert float(ahead[0, 0, 2, 1]) == pytest.approx(float(boredom.level()[0, 0]), rel=1e-5)
    assert float(ahead[0, 1, 0, 1]) == pytest.approx(float(boredom.level()[0, 1]), abs=1e-6)


def test_values_by_hand() -> None:
    ranked = torch.tensor([[[0.0, -torch.inf]]])
    losses = torch.zeros(1, 1, 3, len(AHEAD))
    losses[0, 0, 1, -1] = 2.0  # one item a slate: bored from the eighth request on
    values = plan_values(ranked, losses)[0, 0]
    later = 1 / (1 + torch.e**2)
    assert values[0] == 0.0
    assert float(values[1]) == pytest.approx(8 * 0.5 + 8 * later, rel=1e-5)
    assert values[2] < -1e6  # the topic has one item only


def test_counts_are_the_best_of_all() -> None:
    values = random.normal(random.session_keys(0, torch.arange(20)), 0, "test", 4 * 6)
    values = values.view(20, 4, 6)
    counts = best_counts(values)
    assert bool((counts.sum(1) == 5).all())
    for row in range(20):
        options = [c for c in itertools.product(range(6), repeat=4) if sum(c) == 5]
        worth = [sum(float(values[row, t, n]) for t, n in enumerate(c)) for c in options]
        assert tuple(counts[row].tolist()) == options[worth.index(max(worth))]


@pytest.mark.parametrize(("weight", "least"), [(1.0, -0.01), (3.0, -0.01), (9.0, 0.3)])
def test_planning_never_loses_to_myopia_at_any_boredom(weight: float, least: float) -> None:
    people = synthetic_population(3, users=200, items=300)
    config = UsersConfig(
        boredom=ThresholdBoredom(susceptible_share=1.0, weight=weight),
        patience=NoPatience(),
    )
    keys = random.session_keys(0, torch.arange(40))
    clicks = [
        play(make_users(config, people, 40), keys, policy, 10, 30).clicks
        for policy in (myopic_slate, farsighted_slate)
    ]
    assert float((clicks[1] - clicks[0]).mean() / clicks[0].mean()) > least


KINDS = {
    "exposure bores": {"boredom": {"kind": "threshold", "susceptible_share": 1.0, "weight": 6.0}},
    "clicks bore": {"boredom": {"kind": "churn", "clicks": 2, "window": 9}},
    "nothing bores": {"boredom": {"kind": "none"}},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", [myopic_slate, farsighted_slate])
def test_what_was_seen_is_left_out_and_the_rest_is_chosen_as_if_it_were_all(policy, kind) -> None:
    people = synthetic_population(3, users=50, items=60)
    users = make_users(UsersConfig.model_validate(KINDS[kind]), people, 7)
    keys = random.session_keys(2, torch.arange(7))
    users.reset(keys)
    for request in range(3):
        users.respond(random.integers(keys, request, "shown", 5, 60))
    offer = torch.arange(60).expand(7, -1)
    assert not torch.equal(policy(users, keys, offer, 5), offer[:, :5])
    seen = random.uniform(keys, 0, "seen", 60) < 0.6
    slate = policy(users, keys, offer, 5, seen)
    assert not bool(seen.gather(1, slate).any())
    for row in range(7):  # the same as with the unseen alone on offer
        left = (~seen[row]).nonzero().squeeze(1).expand(7, -1)
        assert sorted(policy(users, keys, left, 5)[row].tolist()) == sorted(slate[row].tolist())


def test_the_myopic_slate_is_the_best_by_click_probability_best_first() -> None:
    people = synthetic_population(3, users=50, items=60)
    users = make_users(UsersConfig(), people, 4)
    users.reset(random.session_keys(2, torch.arange(4)))
    offer = torch.arange(20, 50).expand(4, -1)
    chance = users.click_probability()[:, 20:50]
    expected = 20 + chance.argsort(1, descending=True)[:, :6]
    assert torch.equal(myopic_slate(users, users.user_index, offer, 6), expected)
