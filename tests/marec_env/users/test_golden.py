"""Composed users against a plain restatement: one session at a time, in float64, every module on.

Every configured number differs from every other, so that a term left out, swapped or taken at the
wrong moment shows.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from marec_env import random
from marec_env.users import UsersConfig, make_users
from tests.marec_env.users.conftest import small_population

SESSIONS, SLATE, REQUESTS = 12, 5, 8
ALL = {
    "new_user_share": 0.45,
    "relevance": {"scale_factor": 1.3, "intercept_shift": 0.35},
    "intent": {"weight": 0.37, "switch_probability": 0.3},
    "boredom": {
        "kind": "threshold", "weight": 3.1, "memory": 0.71, "threshold": 0.11, "saturation": 0.43,
        "susceptible_share": 0.6,
    },
    "examination": {"kind": "position", "alpha": 0.93, "decay": 0.78},
    "behaviours": {"names": ("like", "watch_time"), "like_offset": 0.25, "watch_minutes": 13.0},
    "drift": {"kind": "influence", "inertia": 0.88},
    "patience": {
        "kind": "hazard", "initial": 0.9, "maximum": 1.7, "gain": 1.2, "cost": 0.31,
        "hazard": 0.27, "hazard_slope": 1.9,
    },
    "satisfaction": {"memory": 0.74, "initial": 0.41, "lasting": 0.23},
    "returning": {
        "requests": 4, "sessions": 3, "bias": 0.15, "slope": 0.55, "max_gap": 6, "recovery": 0.7,
        "trust_initial": 0.8, "trust_cost": 0.19, "trust_break_even": 0.36,
    },
    "supply": {
        "enabled": True, "reserve": 0.3, "arrival": 0.6, "credit_memory": 0.82,
        "credit_initial": 1.05, "leave_below": 0.34, "aging": 0.07, "aging_limit": 0.4,
    },
    "price": {"sensitivity": 0.9},
    "wear_out": {"weight": 0.21},
    "tiredness": {"minutes": 47.0},
}  # fmt: skip
DEFAULT: dict[str, object] = {}
DRIFT = {"drift": {"kind": "influence", "inertia": 0.7}}  # moves without anything else that does


def shop():
    people = small_population()
    price = 5.0 + torch.arange(40.0) % 7
    return dataclasses.replace(
        people, providers=torch.arange(40) % 5, item_attributes={"price": price}
    )


def sigmoid(value):
    return 1.0 / (1.0 + np.exp(-value))


class OneSession:
    """What one user does, restated from the equations (docs/users.md)."""

    def __init__(self, config, people, key):
        self.c, self.key, self.step = config, key, 0
        self.u, self.x, self.q = (
            part.double().numpy()
            for part in (people.user_factors, people.item_factors, people.quality)
        )
        self.people, self.topic = people, people.topics.numpy()
        draw = self.draws(0, "users/reset", 8)
        self.user = int(draw[0] * len(self.u))
        self.new = draw[1] < config.new_user_share
        b = config.boredom
        self.bored = b.weight if draw[2] < b.susceptible_share else 0.0
        self.taste = self.u[self.user]
        self.intent = self.pick_intent(draw[3])
        self.exposure = np.zeros(4)
        self.satisfaction = config.satisfaction.initial
        self.patience = config.patience.initial
        self.sessions = self.requests = 0
        self.trust = config.returning.trust_initial
        self.watched, self.seen = 0.0, np.zeros(5)
        s = config.supply
        self.released = np.full(5, math.ceil((1 - s.reserve) * 8)) if s.enabled else np.full(5, 8)
        self.credit, self.present = np.full(5, s.credit_initial), np.ones(5, bool)
        self.arrived = np.zeros(40)
        self.dear, self.price_level = self.dearness()

    def draws(self, step, stream, lanes):
        return random.uniform(torch.tensor([self.key]), step, stream, lanes)[0].double().numpy()

    def pick_intent(self, draw):
        past = self.people.history.of(torch.tensor([self.user]))
        history, likes = (rows[0].tolist() for rows in past)
        liked = [item for item, like in zip(history, likes, strict=True) if like and item >= 0]
        return liked[int(draw * len(liked))] if liked else int(draw * 40)

    def rate(self, interest):
        r, p = self.c.relevance, self.people
        return (
            r.scale_factor * p.scale * self.x @ interest + self.q + p.intercept + r.intercept_shift
        )

    def level(self, exposure):
        b = self.c.boredom
        return np.clip((exposure - b.threshold) / (b.saturation - b.threshold), 0, 1)

    def dearness(self):
        """Logits that prices cost this user, and the user's level of them."""
        users = random.session_keys(0, torch.arange(20))
        level = 0.5 * float(random.normal(users, 0, "users/trait/price_level", 1)[self.user])
        log = np.log(self.people.item_attributes["price"].double().numpy())
        lower = [
            np.sort(log[self.topic == t])[(np.sum(self.topic == t) - 1) // 2] for t in range(4)
        ]
        above = np.clip(log - np.array(lower)[self.topic] - level, 0, None)
        return self.c.price.sensitivity * above, level

    def interest(self):
        weight = self.c.intent.weight
        mixed = (1 - weight) * self.taste + weight * self.x[self.intent]
        return mixed / np.linalg.norm(mixed)

    def fresh(self):
        """Click logits but for boredom."""
        s, provider = self.c.supply, np.arange(40) % 5
        logits = self.rate(self.interest())
        if s.enabled:
            logits = logits - np.clip(s.aging * (self.step - self.arrived), 0, s.aging_limit)
        logits = logits - self.dear - self.c.wear_out.weight * np.log1p(self.seen[provider])
        if self.c.tiredness.minutes:
            logits = logits - self.watched / self.c.tiredness.minutes
        return logits

    def logits(self):
        return self.fresh() - self.bored * self.level(self.exposure)[self.topic]

    def there(self):
        item = np.arange(40)
        return (item // 5 < self.released[item % 5]) & self.present[item % 5]

    def respond(self, slate):
        c, size = self.c, len(slate)
        names = c.behaviours.names
        draw = self.draws(self.step, "users/request", 12 + (1 + len(names)) * size)
        luck = draw[12:].reshape(1 + len(names), size)
        logits = self.logits()[slate]
        examined = c.examination.alpha * c.examination.decay ** np.arange(size)
        clicks = (luck[0] < examined * sigmoid(logits)) * self.there()[slate]
        found = {"click": clicks * 1.0}
        found["like"] = clicks * (luck[1] < sigmoid(logits - c.behaviours.like_offset))
        if "watch_time" in names:
            mean = c.behaviours.watch_minutes * sigmoid(logits)
            found["watch_time"] = clicks * mean * -np.log(luck[2])
        appeal = sigmoid(logits)
        lasting = c.satisfaction.lasting
        appeal = (1 - lasting) * appeal + lasting * sigmoid(self.rate(self.taste)[slate])
        enjoyed = (appeal * examined).sum() / examined.sum()
        memory = c.satisfaction.memory
        self.satisfaction = memory * self.satisfaction + (1 - memory) * enjoyed
        engagement = clicks.mean()
        p = c.patience
        self.patience = min(p.maximum, self.patience + p.gain * engagement - p.cost)
        left = self.patience <= 0
        if p.kind == "hazard":
            left = left or draw[5] < p.hazard * math.exp(-p.hazard_slope * self.patience)
        counts = np.bincount(self.topic[slate], minlength=4) / size
        memory = c.boredom.memory
        self.exposure = memory * self.exposure + (1 - memory) * counts
        self.seen = 0.9 * self.seen + np.bincount(slate % 5, minlength=5)
        self.watched += found.get("watch_time", np.zeros(1)).sum()
        if c.drift.kind == "influence" and clicks.any():
            mean = self.x[slate][clicks].mean(0)
            moved = c.drift.inertia * self.taste + (1 - c.drift.inertia) * mean
            self.taste = moved / np.linalg.norm(moved)
        if draw[0] < c.intent.switch_probability:
            self.intent = self.pick_intent(draw[1])
        if c.supply.enabled:
            self.supply(slate, clicks, draw[7], draw[8])
        gap = 0.0
        if c.returning.sessions > 1:
            left, gap = self.come_back(left, draw)
        self.step += 1
        return found, engagement, left, gap

    def supply(self, slate, clicks, arrive, pick):
        s = self.c.supply
        self.credit = s.credit_memory * self.credit + np.bincount(slate % 5, clicks, 5)
        self.present &= self.credit >= s.leave_below
        weight = (1 + self.credit) ** 2 * (self.present & (self.released < 8))
        if arrive < s.arrival and weight.sum() > 0:
            provider = int((np.cumsum(weight) <= pick * weight.sum()).sum())
            self.arrived[provider + 5 * self.released[provider]] = self.step + 1
            self.released[provider] += 1

    def come_back(self, ended, draw):
        r = self.c.returning
        self.requests += 1
        if not (ended or self.requests >= r.requests):
            return False, 0.0
        self.sessions, self.requests = self.sessions + 1, 0
        change = r.trust_cost * (self.satisfaction / r.trust_break_even - 1)
        self.trust = min(r.trust_initial, self.trust + change)
        chance = min(1.0, r.bias + r.slope * self.satisfaction)
        days = max(1, math.ceil(math.log(draw[6]) / math.log1p(-chance)))
        if days > r.max_gap or self.trust <= 0 or self.sessions >= r.sessions:
            return True, 0.0
        self.patience = self.c.patience.initial
        self.exposure = self.exposure * self.c.boredom.memory ** (days * r.recovery)
        self.intent = self.pick_intent(draw[1])
        return False, float(days)

    def hidden(self):
        parts = [self.taste, self.x[self.intent], self.level(self.exposure)]
        parts.append([np.clip(self.patience / self.c.patience.maximum, -1, 1)])
        r = self.c.returning
        if r.sessions > 1:
            trust = np.clip(self.trust / r.trust_initial, -1, 1)
            parts.append([self.sessions / r.sessions, trust])
        if self.c.supply.enabled:
            parts.append(self.present)
        if self.c.wear_out.weight:
            parts += [
                np.log1p(self.seen),
                [self.watched / self.c.tiredness.minutes],
                [self.price_level],
            ]
        parts.append([self.bored / self.c.boredom.weight, self.satisfaction])
        return np.concatenate([np.asarray(part, float) for part in parts])


def _close(found, expected):
    assert np.allclose(found.double().numpy(), np.stack(expected), atol=2e-4)


@pytest.mark.parametrize("settings", [DEFAULT, DRIFT, ALL], ids=["default", "drift", "all"])
def test_users_do_what_the_equations_say(settings):
    config, people = UsersConfig.model_validate(settings), shop()
    keys = random.session_keys(5, torch.arange(SESSIONS))
    users = make_users(config, people, SESSIONS)
    users.reset(keys)
    plain = [OneSession(config, people, int(key)) for key in keys]
    assert users.user_index.tolist() == [one.user for one in plain]
    assert users.is_new.tolist() == [one.new for one in plain]
    came_back = left_for_good = 0
    for request in range(REQUESTS):
        slate = random.integers(keys, request, "test/slate", SLATE, 40)
        slate[:, 0] = request % 2  # repeats bore, wear out and feed a provider
        _close(users.click_probability(), [sigmoid(s.logits()) * s.there() for s in plain])
        _close(users.click_probability(slate), [
            (sigmoid(s.logits()) * s.there())[row] for s, row in zip(plain, slate, strict=True)
        ])  # fmt: skip
        _close(users.fresh_logits(torch.arange(40).expand(SESSIONS, -1)), [
            s.fresh() for s in plain
        ])  # fmt: skip
        _close(users.long_term_relevance(), [s.rate(s.taste) - s.dear for s in plain])
        some = torch.tensor([3, 11])
        _close(users.long_term_relevance(slate[some], rows=some), [
            (plain[row].rate(plain[row].taste) - plain[row].dear)[slate[row]] for row in some
        ])  # fmt: skip
        found = users.respond(slate)
        expected = [s.respond(row.numpy()) for s, row in zip(plain, slate, strict=True)]
        assert tuple(found.behaviours) == ("click", *config.behaviours.names)
        for name, values in found.behaviours.items():
            _close(values, [answer[0][name] for answer in expected])
        _close(found.engagement, [answer[1] for answer in expected])
        assert found.left.tolist() == [bool(answer[2]) for answer in expected]
        gap = torch.zeros(SESSIONS) if found.gap_days is None else found.gap_days
        assert gap.tolist() == [answer[3] for answer in expected]
        _close(found.satisfaction, [s.satisfaction for s in plain])
        _close(users.hidden_state(), [s.hidden() for s in plain])
        _close(found.outcomes["likes"], [answer[0]["like"].sum() for answer in expected])
        came_back += int((gap > 0).sum())
        left_for_good += int(found.left.sum())
        keys = torch.where(found.left, keys + 1, keys)
        users.reset(keys, found.left)
        for place in found.left.nonzero().flatten().tolist():
            plain[place] = OneSession(config, people, int(keys[place]))
    assert (left_for_good > 3) is (came_back > 3) is (settings is ALL)
    assert len({s.bored for s in plain}) == 2


def test_satisfaction_weighs_what_is_looked_at_most():
    """The mean of the slate's appeal, weighted by the chance that a place is looked at."""
    config = UsersConfig.model_validate({
        "satisfaction": {"memory": 0.0}, "intent": {"weight": 0.0}, "boredom": {"kind": "none"},
        "examination": {"kind": "position", "alpha": 0.8, "decay": 0.5},
    })  # fmt: skip
    users = make_users(config, shop(), 2)
    users.reset(torch.arange(2))
    appeal = users.click_probability(torch.tensor([[0, 1, 2], [2, 1, 0]]))
    found = users.respond(torch.tensor([[0, 1, 2], [2, 1, 0]])).satisfaction
    weight = torch.tensor([4.0, 2.0, 1.0]) / 7.0
    assert torch.allclose(found, appeal @ weight, atol=1e-6)
    assert (found - appeal.mean(1)).abs().min() > 1e-3


def test_what_planners_ask_about_boredom():
    config = UsersConfig.model_validate(
        {"boredom": {**ALL["boredom"], "susceptible_share": 0.5}}  # type: ignore[dict-item]
    )
    users = make_users(config, shop(), SESSIONS)
    users.reset(random.session_keys(5, torch.arange(SESSIONS)))
    users.respond(torch.tensor([0, 4, 8, 1, 2]).expand(SESSIONS, -1))
    exposure = (1 - 0.71) * torch.tensor([3, 1, 1, 0]) / 5
    bored = (users.susceptibility > 0).unsqueeze(1)
    assert bored.any() and not bored.all()
    fits = ((0.11 - 0.71 * exposure) / 0.29 * 5).floor().clamp(min=0).long()
    assert torch.equal(users.topic_room(5), torch.where(bored, fits, 5))
    ahead = users.boredom_ahead(2, torch.tensor([0.0, 2.0]))
    assert ahead.shape == (SESSIONS, 4, 3, 2)
    for count in range(3):
        for place, kept in enumerate((1.0, 0.71**2)):
            later = kept * exposure + (1 - kept) * count / 2
            level = ((later - 0.11) / 0.32).clamp(0, 1)
            expected = torch.where(bored, 3.1 * level, 0.0)
            assert torch.allclose(ahead[:, :, count, place], expected, atol=1e-5)
    nobody = make_users(UsersConfig.model_validate({"boredom": {"kind": "none"}}), shop(), 2)
    assert nobody.boredom_ahead(2, torch.tensor([0.0])) is None
    assert nobody.topic_room(3).eq(3).all()


@pytest.mark.parametrize("kind", ["churn", "loss_of_interest"])
def test_clicks_that_bore(kind):
    """Every click lands (logits of 60), so who is bored of what follows from the slates."""
    people = dataclasses.replace(
        shop(), item_factors=torch.eye(6)[torch.arange(40) % 6], intercept=60.0, num_topics=6,
        topics=torch.arange(40) % 6, quality=torch.zeros(40),
    )  # fmt: skip
    config = UsersConfig.model_validate({
        "boredom": {
            "kind": kind, "clicks": 2, "duration": 3, "window": 2, "susceptible_share": 0.5,
        },
        "intent": {"weight": 0.0}, "patience": {"kind": "none"},
        "examination": {"kind": "position", "decay": 1.0},
    })  # fmt: skip
    users = make_users(config, people, SESSIONS)
    users.reset(random.session_keys(5, torch.arange(SESSIONS)))
    before = users.hidden_state()
    users.respond(torch.tensor([0, 6, 1]).expand(SESSIONS, -1))
    bored = users.susceptibility > 0
    assert bored.any() and not bored.all()
    level = users.hidden_state()[:, 6:12]
    assert torch.equal(level, torch.where(bored.unsqueeze(1), torch.eye(6)[0], torch.zeros(6)))
    assert torch.equal(before[:, :6], users.taste)
    interest = users._interest[:, :-1]
    gone = users.taste.clone()
    gone[:, 0] = 0.0
    if kind == "churn":
        gone = torch.zeros_like(gone)
    assert torch.equal(interest, torch.where(bored.unsqueeze(1), gone, users.taste))
    room = torch.tensor([0, 0, 1, 1, 1, 1])
    assert torch.equal(users.topic_room(3)[bored], room.expand(int(bored.sum()), -1))
    for remaining in (2, 1, 0):
        users.respond(torch.tensor([2 + remaining, 5, 1]).expand(SESSIONS, -1))
        assert torch.equal(users.hidden_state()[:, 6], torch.where(bored, remaining / 3, 0.0))


def test_a_state_holds_everything():
    config, people = UsersConfig.model_validate(ALL), shop()
    keys = random.session_keys(5, torch.arange(SESSIONS))
    users, other = (make_users(config, people, SESSIONS) for _ in range(2))
    users.reset(keys)
    slates = [random.integers(keys, step, "test/slate", SLATE, 40) for step in range(8)]
    for slate in slates[:4]:
        users.respond(slate)
    saved = users.state_dict()
    first = [users.respond(slate) for slate in slates[4:]]
    other.load_state_dict(saved)
    for slate, before in zip(slates[4:], first, strict=True):
        again = other.respond(slate)
        assert torch.equal(again.satisfaction, before.satisfaction)
        assert torch.equal(again.gap_days, before.gap_days)
        assert all(torch.equal(again.behaviours[n], v) for n, v in before.behaviours.items())
    assert torch.equal(other.hidden_state(), users.hidden_state())
    assert torch.equal(other.click_probability(), users.click_probability())
