"""What the scenarios add, against values worked out by hand."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from pydantic import ValidationError

from marec_env import random
from marec_env.data.scenarios.numbers import TRADING_DAYS, VOLATILITY
from marec_env.errors import ConfigError
from marec_env.users import UsersConfig, behaviours, effects, make_users
from marec_env.users.base import USER_OUTCOMES, Shown
from marec_env.users.behaviours import Behaviours, daily_volatility, follow_centre, hold
from marec_env.users.config import (
    BehaviourConfig,
    FriendsConfig,
    PriceConfig,
    TirednessConfig,
    WearOutConfig,
)
from marec_env.users.effects import Friends, PriceSense, Tiredness, WearOut, befriend
from marec_env.vector import Rows
from tests.marec_env.users.conftest import shown_items

MANY = 40_000


def rich(population):
    """Return the population with every attribute that a scenario needs."""
    items = population.num_items
    return dataclasses.replace(
        population,
        providers=torch.arange(items) % 5,
        item_attributes={
            "price": 1.0 + torch.arange(items, dtype=torch.float32),
            "length_minutes": torch.full((items,), 30.0),
            "bid": torch.tensor([2.0, 1.0, 3.0, 1.0]).repeat(items // 4),
            "risk": 1.0 + (torch.arange(items) % 7),
        },
        user_attributes={"risk_limit": torch.full((population.num_users,), 3.0)},
    )


def shown(logits: list[float], slate: list[int] | None = None) -> Shown:
    """Return a slate shown to many sessions of user 0."""
    items = list(range(len(logits))) if slate is None else slate
    keys = random.session_keys(1, torch.arange(MANY))
    found = shown_items(torch.tensor([items]).expand(MANY, -1), keys=keys)
    found.logits = torch.tensor([logits]).expand(MANY, -1)
    return found


def respond(module: Behaviours, what: Shown) -> dict[str, torch.Tensor]:
    clicks = torch.ones_like(what.logits)
    draws = random.uniform(what.keys, 1, "test", (len(module.names) - 1) * clicks.shape[1])
    return module.respond(clicks, what, draws)


def test_rates_are_centred_on_clicks() -> None:
    # Two items, clicked equally often: mean of exp(r/2 - c/2) is 1 at c = 2 log((1 + e) / 2).
    found = follow_centre(torch.tensor([0.0, 2.0]), torch.tensor([0.3, 0.3]), slope=0.5)
    assert found == pytest.approx(2 * math.log((1 + math.e) / 2))
    # Three times as many clicks on the second.
    found = follow_centre(torch.tensor([0.0, 2.0]), torch.tensor([0.1, 0.3]), slope=0.5)
    assert found == pytest.approx(2 * math.log((1 + 3 * math.e) / 4))
    assert follow_centre(torch.tensor([0.0, 2.0]), torch.tensor([0.1, 0.3]), slope=0.0) == 0.0


def test_shop_funnel(population) -> None:
    config = BehaviourConfig(names=("cart", "purchase"), cart_rate=0.2, purchase_rate=0.5)
    module = Behaviours(config, rich(population))
    what = shown([0.0, 2.0], slate=[4, 9])
    found = respond(module, what)
    # Centre 0 and slope .5: odds of a cart .25 and .25 e, of a purchase from it 1 and e.
    e = math.e
    assert torch.allclose(
        found["cart"].mean(0), torch.tensor([0.2, 0.25 * e / (1 + 0.25 * e)]), atol=0.01
    )
    kept = found["purchase"].sum(0) / found["cart"].sum(0)
    # The product at place 1 has risk class 3, at place 0 class 5, above the limit of 3: refused.
    assert torch.allclose(kept, torch.tensor([0.0, e / (1 + e)]), atol=0.02)
    assert bool((found["purchase"] <= found["cart"]).all())
    totals = module.outcomes(what)
    assert torch.equal(totals["revenue"], 10.0 * totals["purchases"])  # the ninth item costs 10
    assert torch.equal(totals["unsuitable"], torch.ones(MANY))


def test_price_is_judged_within_the_topic(population) -> None:
    people = rich(population)
    price = torch.ones(40)
    price[[0, 4]] = torch.tensor([8.0, 2.0])  # both of topic 0, whose median is 1
    people = dataclasses.replace(people, item_attributes={"price": price})
    config = UsersConfig(price=PriceConfig(sensitivity=0.5))
    sense = PriceSense(config, people, 1)
    sense.level.zero_()
    loss = sense.loss(torch.tensor([[0, 4, 1]]), torch.tensor([0]))
    assert torch.allclose(loss, torch.tensor([[0.5 * math.log(8), 0.5 * math.log(2), 0.0]]))
    with pytest.raises(ConfigError, match=r"needs the item attribute 'price'.*there: none"):
        PriceSense(config, population, 1)


def test_completion_times_length_is_watch_time(population, monkeypatch) -> None:
    monkeypatch.setattr(behaviours, "COMPLETION_NOISE", 0.0)
    config = BehaviourConfig(names=("completion", "watch_time"))
    module = Behaviours(config, rich(population))
    what = shown([1.0, 2.0])
    found = respond(module, what)
    expected = torch.sigmoid(1.5 * torch.tensor([1.0, 2.0]))
    assert torch.allclose(found["completion"][0], expected, atol=1e-4)
    assert torch.allclose(found["watch_time"][0], 30.0 * expected, atol=1e-2)
    assert torch.allclose(
        module.outcomes(what)["watch_minutes"][0], 30.0 * expected.sum(), atol=0.1
    )
    monkeypatch.setattr(behaviours, "COMPLETION_NOISE", 1.5)
    drawn = respond(module, shown([0.0]))["completion"]
    ends = ((drawn < 0.1) | (drawn > 0.9)).float().mean()
    middle = ((drawn > 0.4) & (drawn < 0.6)).float().mean()
    assert ends > 2 * middle  # U-shaped: as wide a middle holds far fewer


def test_tiredness_adds_up(population) -> None:
    names = BehaviourConfig(names=("watch_time",))
    config = UsersConfig(behaviours=names, tiredness=TirednessConfig(minutes=120.0))
    tired = Tiredness(config, population, 2)
    seen = shown_items(torch.zeros(2, 2, dtype=torch.int64))
    seen.found["watch_time"] = torch.tensor([[30.0, 30.0], [0.0, 0.0]])
    tired.update(seen)
    lost = tired.adjust(torch.zeros(2, 1), seen)
    assert torch.allclose(lost, torch.tensor([[-0.5], [0.0]]))
    none = torch.zeros(1)
    tired.reset(Rows(torch.tensor([True, False])), none.long(), none.long(), none)
    assert float(tired.adjust(torch.zeros(2, 1), seen).sum()) == 0.0
    with pytest.raises(ValidationError, match="needs watch_time"):
        UsersConfig(tiredness=TirednessConfig(minutes=60.0))


def test_likes_and_shares_are_concentrated_at_the_same_mean(population) -> None:
    config = BehaviourConfig(
        names=("like", "share"), like_rate=0.01, share_rate=0.02, readiness_spread=2.0
    )
    module = Behaviours(config, population)
    what = shown([0.0])
    what.users = torch.arange(MANY) % population.num_users
    found = respond(module, what)
    # exp(h / 2) with h ~ N(-1, 4) has mean 1 over users; over the twenty here, their own mean.
    assert module._ready is not None
    factor = torch.exp(0.5 * module._ready)
    odds = 0.02 / 0.98 * factor
    assert float(found["share"].mean()) == pytest.approx(float((odds / (1 + odds)).mean()), rel=0.1)
    assert float(found["like"].mean()) < float(found["share"].mean())


def test_friends_of_the_logs_graph_take_the_place_of_those_of_like_taste(population) -> None:
    star = [(2, other) for other in range(20) if other != 2] + [(5, 6)]
    pairs = torch.tensor(star + [(b, a) for a, b in star])
    known = dataclasses.replace(population, friends=pairs)
    table = befriend(known)
    assert table.shape == (20, 9)
    assert len(set(table[2].tolist())) == 9  # drawn of nineteen
    assert set(table[2].tolist()) <= set(range(20)) - {2}
    assert table[3].tolist() == [2] + [-1] * 8
    assert sorted(table[5].tolist()) == [-1] * 7 + [2, 6]
    config, keys = UsersConfig(friends=FriendsConfig(influence=2.0)), torch.tensor([4])
    friends = Friends(config, known, 1)
    friends.reset(Rows(), torch.tensor([3]), keys, torch.zeros(1))
    # One item that the only friend likes, and nobody else's.
    row, likes = (part[0] for part in known.history.of(torch.tensor([2])))
    assert float(friends.endorsed.sum()) == 1.0
    assert friends.endorsed[0].argmax().item() in row[likes].tolist()


def test_friends_endorse_what_they_liked_and_it_fades(population, monkeypatch) -> None:
    config = UsersConfig(friends=FriendsConfig(influence=2.0))
    assert befriend(population).shape == (20, 6 + 3)
    assert bool((befriend(population) != torch.arange(20).unsqueeze(1)).all())
    friends = Friends(config, population, 1)
    users, keys = torch.tensor([3]), random.session_keys(0, torch.tensor([0]))
    friends.reset(Rows(), users, keys, torch.zeros(1))
    liked = set()
    for friend in friends.friends[3].tolist():
        row, likes = (part[0] for part in population.history.of(torch.tensor([friend])))
        liked |= set(row[likes & (row >= 0)].tolist())
    endorsed = friends.endorsed[0].nonzero().squeeze(1).tolist()
    assert endorsed and set(endorsed) <= liked
    assert float(friends.endorsed.sum()) <= 9.0
    monkeypatch.setattr(effects, "_ACTIVITY", 0.0)
    friends.endorsed[0, 7] = 3.0
    seen = shown_items(torch.tensor([[7]]), users=users, keys=keys)
    assert friends.adjust(torch.zeros(1), seen).item() == pytest.approx(2.0 * math.log(4.0))
    friends.update(seen)
    faded = 2.0 * math.log(1 + 0.9 * 3.0)
    assert friends.adjust(torch.zeros(1), seen).item() == pytest.approx(faded)


def test_providers_wear_out(population) -> None:
    people = rich(population)  # provider = item mod 5
    config = UsersConfig(wear_out=WearOutConfig(weight=0.5))
    tired = WearOut(config, people, 1)
    zero = torch.zeros(1, 3)
    tired.update(shown_items(torch.tensor([[0, 5, 1]])))
    loss = -tired.adjust(zero, shown_items(torch.tensor([[10, 6, 2]])))
    assert torch.allclose(loss, 0.5 * torch.log(torch.tensor([[3.0, 2.0, 1.0]])))
    tired.update(shown_items(torch.tensor([[2]])))
    loss = -tired.adjust(zero, shown_items(torch.tensor([[0, 1, 2]])))
    assert torch.allclose(loss, 0.5 * torch.log(torch.tensor([[2.8, 1.9, 2.0]])))
    with pytest.raises(ConfigError, match="no providers"):
        WearOut(config, population, 1)


def test_second_price_auction(population) -> None:
    config = BehaviourConfig(names=("payment",), reserve_price=0.25)
    module = Behaviours(config, rich(population))
    what = shown([0.0, 0.0, math.log(1 / 3)])  # rates .5, .5, .25; bids 2, 1, 3
    paid = respond(module, what)["payment"][0]
    # 1 * .5 / .5 = 1; 3 * .25 / .5 = 1.5, but never more than the bid of 1; the last: the reserve.
    assert torch.allclose(paid, torch.tensor([1.0, 1.0, 0.25]), atol=1e-6)
    assert float(module.outcomes(what)["revenue"][0]) == pytest.approx(2.25)
    with pytest.raises(ConfigError, match="'bid'"):
        Behaviours(config, population)


def test_holding_times_and_returns() -> None:
    keys, none = random.session_keys(2, torch.arange(MANY)), torch.zeros(MANY, dtype=torch.int64)
    bought = torch.tensor([[1.0, 0.0]]).expand(MANY, 2)
    risk = daily_volatility(torch.full((MANY, 2), 7.0))
    # Gains and losses alike: sold each day with probability .1, geometric, mean 10 days.
    some = slice(4000)
    days, earned = hold(bought[some], risk[some], keys[some], none[some], (0.1, 0.1), 200)
    assert float(days[:, 0].mean()) == pytest.approx(10.0, rel=0.06)
    assert float(days[:, 1].abs().max()) == float(earned[:, 1].abs().max()) == 0.0
    # A martingale: nothing is earned on average, whoever sells what.
    days, earned = hold(bought, risk, keys, none, horizon=30)
    held = earned[:, 0]
    assert abs(float(held.mean())) < 3 * float(held.std()) / MANY**0.5
    sold = days[:, 0] < 30
    assert float((held[sold] > 0).double().mean()) > 0.55  # gains are sold more readily
    assert float(days.max()) == 30.0


def test_wrong_orders_of_behaviours_are_refused() -> None:
    for names in (
        ("purchase", "cart"),
        ("watch_time", "completion"),
        ("holding_days",),
        ("holding_return", "purchase"),
    ):
        with pytest.raises(ValidationError, match="must come"):
            BehaviourConfig(names=names)


EVERYTHING = UsersConfig(
    behaviours=BehaviourConfig(
        names=(
            "like",
            "cart",
            "purchase",
            "completion",
            "watch_time",
            "share",
            "conversion",
            "payment",
            "holding_days",
            "holding_return",
        ),
        cart_rate=0.5,
        purchase_rate=0.9,
        readiness_spread=1.0,
    ),
    price=PriceConfig(sensitivity=1.0),
    wear_out=WearOutConfig(weight=0.5),
    tiredness=TirednessConfig(minutes=100.0),
    friends=FriendsConfig(influence=0.8),
)


def test_sessions_do_not_depend_on_the_batch_and_resume(population) -> None:
    people = rich(population)
    keys = random.session_keys(5, torch.arange(9))
    many, one = (make_users(EVERYTHING, people, size) for size in (9, 1))
    many.reset(keys)
    one.reset(keys[4:5])
    saved = None
    for step in range(12):
        slate = random.integers(keys, step, "test/slate", 5, people.num_items)
        whole, alone = many.respond(slate), one.respond(slate[4:5])
        for name, value in alone.behaviours.items():
            same = whole.behaviours[name][4:5]
            # Amounts go through vectorised functions, whose last bit depends on the batch's size.
            assert torch.allclose(same, value, rtol=1e-5, atol=1e-6), name
            if name not in ("completion", "watch_time", "payment", "holding_return"):
                assert torch.equal(same, value), name
        assert set(alone.outcomes) == set(USER_OUTCOMES)
        if step == 5:
            saved = {name: value.clone() for name, value in one.state_dict().items()}
            later = make_users(EVERYTHING, people, 1)
            later.load_state_dict(saved)
        elif step > 5:
            again = later.respond(slate[4:5])
            assert all(torch.equal(again.behaviours[n], v) for n, v in alone.behaviours.items())
    assert saved is not None


def test_click_probability_counts_every_effect(population) -> None:
    people = rich(population)
    users = make_users(EVERYTHING, people, 200)
    plain = make_users(UsersConfig(), people, 200)
    keys = random.session_keys(5, torch.arange(200))
    for model in (users, plain):
        model.reset(keys)
        for step in range(3):
            model.respond(random.integers(keys, step, "test/slate", 5, people.num_items))
    items = torch.arange(40).expand(200, -1)
    assert torch.allclose(users.click_probability(), users.click_probability(items))
    assert not torch.allclose(users.click_probability(), plain.click_probability())
    dear = users.long_term_relevance() - plain.long_term_relevance()
    assert float(dear.max()) <= 1e-5 and float(dear.min()) < -0.1  # only prices are lasting


def test_what_is_bought_is_held_and_sold_by_hand() -> None:
    yearly = [VOLATILITY[0], VOLATILITY[3], VOLATILITY[6]]
    found = daily_volatility(torch.tensor([1.0, 4.0, 7.0])).tolist()
    assert found == pytest.approx([value / math.sqrt(TRADING_DAYS) for value in yearly])
    purchase = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    volatility = torch.tensor([[0.01, 0.02, 0.03], [0.04, 0.05, 0.06]])
    keys, step, gains, horizon = torch.tensor([11, 12]), torch.tensor([3, 5]), (0.2, 0.05), 15
    days, earned = hold(purchase, volatility, keys, step, gains, horizon)
    for row, place in itertools.product(range(2), range(3)):
        if not purchase[row, place]:
            assert days[row, place] == earned[row, place] == 0.0
            continue
        own = random.session_keys(0, keys[row : row + 1] + place)
        moves = random.normal(own, step[row : row + 1], "users/holding_price", horizon)[0].tolist()
        luck = random.uniform(own, step[row : row + 1], "users/holding_sale", horizon)[0].tolist()
        daily, log_price, day = float(volatility[row, place]), 0.0, 0
        for day in range(1, horizon + 1):
            log_price += daily * moves[day - 1] - daily**2 / 2
            if luck[day - 1] < gains[0 if log_price > 0 else 1]:
                break
        assert days[row, place].item() == day
        assert earned[row, place].item() == pytest.approx(100 * math.expm1(log_price), abs=1e-3)


def test_what_is_usually_clicked_is_half_watched(population, monkeypatch) -> None:
    monkeypatch.setattr(behaviours, "COMPLETION_NOISE", 0.0)
    module = Behaviours(BehaviourConfig(names=("completion",)), rich(population))
    module._half_watched = 0.7
    found = respond(module, shown([0.7, 1.7]))["completion"][0]
    expected = [0.5, 1.0 / (1.0 + math.exp(-behaviours.COMPLETION_SLOPE))]
    assert found.tolist() == pytest.approx(expected, abs=1e-4)
