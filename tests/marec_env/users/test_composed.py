"""Composed users: same draws at any batch size, exact resume, probabilities that hold."""

from __future__ import annotations

import torch

from marec_env import random
from marec_env.users import Population, UsersConfig, make_users


def _roll(users, keys, requests, slate_seed=3):
    users.reset(keys)
    trace = []
    for step in range(requests):
        slate = random.integers(keys, step + slate_seed, "test/slate", 5, users.num_items)
        feedback = users.respond(slate)
        trace.append(torch.cat([feedback.clicks, feedback.behaviours["like"]], dim=1))
        users.reset(keys + step + 1, feedback.left)
    return torch.stack(trace)


def test_draws_do_not_depend_on_the_batch(population: Population) -> None:
    keys = random.session_keys(11, torch.arange(64))
    whole = make_users(UsersConfig(), population, 64)
    part = make_users(UsersConfig(), population, 8)
    a, b = _roll(whole, keys, 30), _roll(part, keys[:8], 30)
    assert torch.equal(a[:, :8], b)
    assert torch.equal(whole.hidden_state()[:8], part.hidden_state())
    assert a.sum() > 0


def test_state_resumes_exactly(population: Population) -> None:
    keys = random.session_keys(11, torch.arange(6))
    users = make_users(UsersConfig(), population, 6)
    _roll(users, keys, 7)
    saved = users.state_dict()
    slate = torch.arange(30).reshape(6, 5)
    first = users.respond(slate)
    other = make_users(UsersConfig(), population, 6)
    other.load_state_dict(saved)
    again = other.respond(slate)
    assert torch.equal(first.clicks, again.clicks)
    assert torch.equal(users.hidden_state(), other.hidden_state())


def test_click_probability_predicts_the_clicks(population: Population) -> None:
    sessions = 20_000
    users = make_users(UsersConfig(), population, sessions)
    users.reset(random.session_keys(1, torch.arange(sessions)))
    slate = torch.tensor([0, 4, 8, 13]).expand(sessions, 4)
    for _ in range(4):  # the first three items share a topic: boredom builds up
        expected = users.click_probability(slate) * 0.85 ** torch.arange(4)
        assert torch.allclose(
            users.click_probability(slate), users.click_probability()[:, slate[0]]
        )
        clicks = users.respond(slate).clicks
        error = (expected * (1 - expected)).mean(0).div(sessions).sqrt()
        assert ((clicks - expected).mean(0).abs() < 4 * error).all()
    assert users.hidden_state()[:, 12].max() == 1.0


def test_reset_draws_the_configured_shares(population: Population) -> None:
    users = make_users(UsersConfig(), population, 20_000)
    users.reset(random.session_keys(5, torch.arange(20_000)))
    assert abs(users.is_new.float().mean() - 0.35) < 0.015
    assert abs((users.susceptibility == 9.0).float().mean() - 0.5) < 0.015
    assert torch.bincount(users.user_index, minlength=20).min() > 850
