"""Presets against literal transcriptions of the stated equations; defects and their corrections."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
import torch

from marec_env import random
from marec_env.classic import PRESETS, get_preset
from marec_env.classic.rollout import EpisodeTotals, offer, play
from marec_env.users import ORACLES


def _play(
    name: str, policy: str, sessions: int, published: bool = False, **changes
) -> EpisodeTotals:
    preset = get_preset(name, published)
    keys = random.session_keys(1, torch.arange(sessions))
    settings = {"candidates": preset.candidates, "reward": preset.reward} | changes
    horizon = settings.pop("horizon", preset.horizon)
    choose = ORACLES[policy] if isinstance(policy, str) else policy
    return play(preset.users(sessions), keys, choose, preset.slate_size, horizon, **settings)


AMOUNTS = ("completion", "watch_time", "payment", "holding_return")


def _mean(outcome: EpisodeTotals) -> float:
    return float(outcome.reward.mean())


@pytest.mark.parametrize("name", PRESETS.names())
def test_every_preset_is_independent_of_the_batch_and_resumes(name: str) -> None:
    preset = get_preset(name)
    keys = random.session_keys(3, torch.arange(12))
    whole, part = preset.users(12), preset.users(3)
    whole.reset(keys)
    part.reset(keys[:3])
    for step in range(8):
        items = random.integers(keys, step, "test/slate", preset.slate_size, whole.num_items)
        one, two = whole.respond(items), part.respond(items[:3])
        for behaviour in whole.behaviours:
            mine, alone = one.behaviours[behaviour][:3], two.behaviours[behaviour]
            if behaviour in AMOUNTS:  # the last bit of vectorised functions depends on the size
                assert torch.allclose(mine, alone, rtol=1e-5, atol=1e-6), behaviour
            else:
                assert torch.equal(mine, alone), behaviour
        assert torch.equal(one.left[:3], two.left)
        whole.reset(keys + step, one.left)
        part.reset(keys[:3] + step, two.left)
    copy = preset.users(12)
    copy.load_state_dict(whole.state_dict())
    assert torch.equal(copy.respond(items).clicks, whole.respond(items).clicks)
    assert torch.equal(copy.hidden_state(), whole.hidden_state())
    assert whole.hidden_state().shape == (12, whole.hidden_size)


class _Sardine:
    """One user of the SARDINE equations, step by step, boredom by churn and return."""

    def __init__(self, user: np.ndarray, items: np.ndarray, threshold: int, omega: float) -> None:
        self.user, self.items, self.threshold, self.omega = user, items, threshold, omega
        self.clicked: deque[tuple[int, int]] = deque(maxlen=10)  # (topic, step)
        self.step = 0
        self.bored = np.zeros(10, dtype=bool)
        self.timeout = np.full(10, 5)
        self.present = user

    def update(self, slate: np.ndarray, clicks: np.ndarray, published: bool) -> None:
        chosen = slate[clicks > 0]
        self.clicked.extend((int(self.items[item].argmax()), self.step) for item in chosen)
        self.step += 1
        while self.clicked and self.clicked[0][1] < self.step - 5:
            self.clicked.popleft()
        self.timeout -= self.bored
        self.bored &= self.timeout != 0
        self.timeout[~self.bored] = 5
        for topic in range(10):
            if sum(one == topic for one, _ in self.clicked) >= self.threshold:
                self.bored[topic] = True
        if len(chosen):
            mean = np.mean(self.items[chosen], axis=None if published else 0)
            self.user = self.omega * self.user + (1 - self.omega) * mean
            self.user = self.user / np.linalg.norm(self.user)
        self.present = np.zeros(10) if self.bored.any() else self.user


@pytest.mark.parametrize("name", ["SlateTopK-BoredInf", "SlateTopK-Uncertain", "SlateRerank-Bored"])
@pytest.mark.parametrize("published", [False, True])
def test_sardine_follows_its_equations(name: str, published: bool) -> None:
    preset = get_preset(f"sardine/{name}", published)
    population = preset.population(0)
    users = preset.users(4, population=population)
    keys = random.session_keys(2, torch.arange(4))
    users.reset(keys)
    items = population.item_factors.numpy().astype(np.float64)
    rerank = name == "SlateRerank-Bored"
    slope, offset = (5, 0.3) if rerank else ((10, 0.65) if "Uncertain" in name else (100, 0.65))
    omega = 1.0 if rerank else 0.95
    people = population.user_factors[users.user_index].numpy().astype(np.float64)
    reference = [_Sardine(one, items, 4 if rerank else 5, omega) for one in people]
    bored = 0
    for _ in range(60):
        found = users.click_probability().numpy()
        for row, one in enumerate(reference):
            expected = 1 / (1 + np.exp(-slope * (items @ one.present - offset)))
            np.testing.assert_allclose(found[row], expected, atol=2e-3)
            bored += one.bored.any()
        everything = offer(users, keys, 0)
        slate = ORACLES["myopic"](users, keys, everything, preset.slate_size)
        clicks = users.respond(slate).clicks
        for row, one in enumerate(reference):
            one.update(slate[row].numpy(), clicks[row].numpy(), published)
    assert bored > 40


def test_sardine_clicks_decay_with_the_position() -> None:
    users = get_preset("sardine/SlateTopK-Static").users(20_000)
    keys = random.session_keys(2, torch.arange(20_000))
    users.reset(keys)
    slate = ORACLES["myopic"](users, keys, offer(users, keys, 0), 10)
    expected = users.click_probability(slate).mean(0) * 0.85 ** torch.arange(10.0)
    assert torch.allclose(users.respond(slate).clicks.mean(0), expected, atol=0.015)


def test_sardine_population_is_as_stated() -> None:
    population = get_preset("sardine/SlateTopK-Static").population(0)
    for factors, least, most in (
        (population.item_factors, 2, 3),
        (population.user_factors, 3, 5),
    ):
        assert torch.allclose(factors.norm(dim=1), torch.ones(len(factors)), atol=1e-5)
        counts = (factors > 0).sum(1)
        assert counts.min() == least
        assert counts.max() == most
    # Binomial(10, 0.4) given 3 to 5: 0.215, 0.251 and 0.201 over their sum.
    share = torch.bincount((population.user_factors > 0).sum(1))[3:] / population.num_users
    assert torch.allclose(share, torch.tensor([0.3226, 0.3763, 0.3011]), atol=0.03)


def test_sardine_defect_draws_users_to_the_uniform_vector() -> None:
    """Whatever is clicked: the published influence homogenises, the corrected one does not."""
    likeness = {}
    for published in (False, True):
        users = get_preset("sardine/SlateTopK-BoredInf", published).users(200)
        keys = random.session_keys(2, torch.arange(200))
        uniform = torch.full((10,), 10**-0.5)
        users.reset(keys)
        before = float((users.taste @ uniform).mean())
        for _ in range(100):
            slate = ORACLES["farsighted"](users, keys, offer(users, keys, 0), 10)
            users.respond(slate)
        likeness[published] = float((users.taste @ uniform).mean()) - before
    assert likeness[True] > 0.2
    assert likeness[True] > likeness[False] + 0.15


def _interest_evolution(rng: np.random.Generator) -> float:
    """Play one episode of random slates by the published equations; return the minutes watched."""
    means = np.concatenate([np.linspace(-3, 0, 14), np.linspace(0, 3, 6)])
    interest, budget, total = rng.uniform(-1, 1, 20), 200.0, 0.0
    while budget > 0:
        topics = rng.integers(0, 20, 2)
        quality = rng.normal(means[topics], 0.1)
        weights = np.append(interest[topics] + 1, 2.0)
        chosen = rng.choice(3, p=weights / weights.sum())
        if chosen == 2:
            budget -= 0.5
            continue
        topic = topics[chosen]
        watch = min(budget, 4.0)
        total += watch
        step = 0.3 * (1 - abs(interest[topic])) * (1 - interest[topic])
        sign = 1 if rng.random() < (interest[topic] + 1) / 2 else -1
        interest[topic] = np.clip(interest[topic] + sign * step, -1, 1)
        budget += -watch + 0.9 / 3.4 * watch * quality[chosen]
    return total


def test_interest_evolution_agrees_with_its_equations() -> None:
    rng = np.random.default_rng(0)
    reference = np.array([_interest_evolution(rng) for _ in range(300)])
    ours = _play("recsim/interest_evolution", "random", 1000).reward.numpy()
    error = np.hypot(reference.std() / 300**0.5, ours.std() / 1000**0.5)
    assert abs(ours.mean() - reference.mean()) < 2 * error
    assert error < 2.0  # of about 155 minutes


def test_interest_evolution_rewards_foresight() -> None:
    found = [_mean(_play("recsim/interest_evolution", name, 200)) for name in ORACLES]
    assert found[0] < found[1] < found[2]
    assert found[2] > 1.4 * found[1]


def _clickbait(least: bool):
    def choose(users, keys, items, slate_size):
        value = users.population.item_factors[:, 0][items]
        return items.gather(1, value.topk(slate_size, dim=1, largest=not least).indices)

    return choose


def test_long_term_satisfaction_defect_and_correction() -> None:
    """As published clickbait > random > quality; corrected the reverse, yet clickbait pays now."""
    for published in (True, False):
        policies = (_clickbait(False), "random", _clickbait(True))
        found = [
            _mean(_play("recsim/long_term_satisfaction", one, 300, published)) for one in policies
        ]
        assert found == sorted(found, reverse=published)
    now = [
        _mean(_play("recsim/long_term_satisfaction", one, 3000, horizon=1))
        for one in (_clickbait(False), _clickbait(True))
    ]
    assert now[0] > now[1]


def test_long_term_satisfaction_by_hand() -> None:
    users = get_preset("recsim/long_term_satisfaction").users(50_000)
    users.reset(random.session_keys(1, torch.arange(50_000)))
    users.exposure.fill_(1.0)
    item = int((users.population.item_factors[:, 0] - 0.75).abs().argmin())
    feedback = users.respond(torch.full((50_000, 1), item))
    mean = (5 * 0.75 + 4 * 0.25) / (1 + np.exp(-0.3))
    logs = feedback.behaviours["watch_time"][:, 0].log()
    assert abs(logs.mean() - mean) < 0.03
    assert abs(logs.std() - 1.0) < 0.02
    assert abs(users.exposure.mean() - (0.7 - 0.5)) < 0.005
    assert abs(users.exposure.std() - 0.05) < 0.002


def test_interest_exploration_by_hand() -> None:
    preset = get_preset("recsim/interest_exploration")
    population = preset.population(0)
    users = preset.users(50_000, population=population)
    users.reset(random.session_keys(1, torch.arange(50_000)))
    users.user_index.fill_(3)
    users._interest[:, :-1] = population.user_factors[3]
    topics = population.topics[:2]
    scores = population.user_factors[3, topics] + population.quality[:2]
    weights = torch.exp(torch.cat([scores, torch.tensor([5.0])]))
    clicks = users.respond(torch.tensor([[0, 1]]).expand(50_000, 2)).clicks.mean(0)
    assert torch.allclose(clicks, (weights / weights.sum())[:2], atol=0.006)
    assert (
        abs((population.user_factors[:, 0] < population.user_factors[:, 1]).float().mean() - 0.3)
        < 0.03
    )


def test_kuaisim_defect_leaves_no_behaviour_rare() -> None:
    for published in (True, False):
        users = get_preset("kuaisim/session", published).users(200)
        users.reset(random.session_keys(1, torch.arange(200)))
        feedback = users.respond(torch.arange(6).expand(200, 6))
        rare = feedback.behaviours["hate"].mean()
        chance = users.click_probability()
        if published:
            assert rare > 0.45
            assert chance.min() >= 0.5
            assert chance.max() < 0.7311
        else:
            assert rare < 0.02
            assert chance.min() < 0.2


def test_kuaisim_defect_lets_nobody_leave() -> None:
    kept, lost = (_play("kuaisim/session", "random", 200, one).length for one in (True, False))
    assert kept.min() == 20
    assert lost.mean() < 15


def test_kuaisim_defect_voids_the_similarity_penalty() -> None:
    slate = torch.zeros(2, 6, dtype=torch.int64)  # one item six times: similarity 1
    corrected = get_preset("kuaisim/request").users(2).similarity(slate)
    published = get_preset("kuaisim/request", True).users(2).similarity(slate)
    assert torch.allclose(corrected, torch.ones(2, 6), atol=1e-5)
    assert torch.allclose(published, torch.full((2, 6), 1 / 32), atol=1e-6)


def test_kuaisim_temper_and_sessions() -> None:
    assert _play("kuaisim/request", "random", 20, horizon=50).length.unique().tolist() == [20.0]
    across = _play("kuaisim/cross_session", "random", 2000, horizon=50)
    assert across.length.unique().tolist() == [30.0]
    assert across.sessions.unique().tolist() == [6.0]
    # Five gaps; at P about .45 a geometric day, at most 10, is 2.2 on average.
    assert 1.9 < float(across.days.mean()) / 5 < 2.6


@pytest.mark.parametrize("name", PRESETS.names())
def test_oracles_are_ordered(name: str) -> None:
    sessions = 40
    floor, myopic, bar = (_mean(_play(name, one, sessions)) for one in ORACLES)
    # Where clickbait spoils the future, the myopic line is the worst; elsewhere it beats chance.
    assert name == "recsim/long_term_satisfaction" or floor < myopic
    assert myopic <= bar + 1e-6
