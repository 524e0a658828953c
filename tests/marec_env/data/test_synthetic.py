"""Generated logs: the same from the same seed, and each scenario's own mechanisms."""

from __future__ import annotations

import hashlib

import pytest
import torch

from marec_env.data.config import DataConfig, SyntheticConfig
from marec_env.data.log import Impressions, InteractionLog, load_log
from marec_env.data.scenarios import SCENARIOS
from marec_env.data.synthetic import generate
from marec_env.errors import ConfigError

SIZES = SyntheticConfig(num_users=300, num_items=300, days=20, seed=5)
GOLDEN = (
    ("ads", 0, "668babf490838937"),
    ("ads", 7, "6ea873e0c7d11a9b"),
    ("ecommerce", 0, "b2c52e6186a4bb3e"),
    ("ecommerce", 7, "3fe15b7139a55a68"),
    ("finance", 0, "d680267f9851337c"),
    ("finance", 7, "674c026860d87f29"),
    ("social", 0, "fa5d64672577fb5c"),
    ("social", 7, "630f32fad3715314"),
    ("streaming", 0, "1364b6714eb6ad3a"),
    ("streaming", 7, "aa88b48fa034908f"),
)
_LOGS: dict[str, InteractionLog] = {}


def log_of(name: str) -> InteractionLog:
    """Return a scenario's log, generated once."""
    if name not in _LOGS:
        _LOGS[name] = load_log(DataConfig(source=f"synthetic/{name}", synthetic=SIZES))
    return _LOGS[name]


def shown(name: str) -> Impressions:
    impressions = log_of(name).impressions
    assert impressions is not None
    return impressions


@pytest.mark.parametrize("name", SCENARIOS.names())
def test_generated_logs_are_sound(name: str) -> None:
    log, seen = log_of(name), shown(name)
    assert bool(((seen.propensity > 0) & (seen.propensity <= 1)).all())
    click = seen.behaviours["click"]
    for values in log.behaviours.values():
        assert bool(torch.isfinite(values).all())
    for values in seen.behaviours.values():
        assert float((values * (1 - click)).abs().max()) == 0.0  # nothing follows without a click
    assert 1.0 <= float(log.rating.min()) <= float(log.rating.max()) <= 5.0
    assert bool(log.liked.any())
    assert len(set(log.titles)) == log.num_items
    assert not any("{" in text for text in log.texts)


@pytest.mark.parametrize("name", SCENARIOS.names())
def test_same_seed_same_log(name: str) -> None:
    sizes = SyntheticConfig(num_users=30, num_items=60, days=5, sessions_per_user=4, seed=7)
    first, second = (generate(name, sizes, 3.0)[0] for _ in range(2))
    assert torch.equal(first.item, second.item)
    assert first.fingerprint == second.fingerprint
    other = generate(name, sizes.model_copy(update={"seed": 8}), 3.0)[0]
    assert not torch.equal(first.item, other.item)
    assert first.fingerprint != other.fingerprint


@pytest.mark.parametrize(("name", "seed", "digest"), GOLDEN)
def test_logs_are_those_of_old(name: str, seed: int, digest: str) -> None:
    """Words, who came, what was shown and clicked, and the sums of all amounts, to 6 digits."""
    sizes = SyntheticConfig(num_users=40, num_items=60, days=6, sessions_per_user=4, seed=seed)
    log = generate(name, sizes, 4.0)[0]
    seen = log.impressions
    assert seen is not None
    columns = (log.user, log.item, log.time, seen.user, seen.item, seen.time, seen.position)
    found = hashlib.sha256(repr((log.titles, log.texts)).encode())
    for column in (*columns, seen.behaviours["click"].to(torch.int64)):
        found.update(column.numpy().tobytes())
    numbers = {**seen.behaviours, **log.item_attributes, **log.user_attributes}
    for key, values in (*numbers.items(), ("rating", log.rating), ("p", seen.propensity)):
        found.update(f"{key} {float(values.double().sum()):.6g}".encode())
    assert found.hexdigest()[:16] == digest


def test_propensities_of_a_slate_obey_plackett_luce() -> None:
    """Under even choice of a position's items, Σ 1/p over the shown is N on average."""
    seen = shown("ecommerce")
    first = seen.position == 0
    available = torch.unique(seen.item).numel()
    estimate = float((1 / seen.propensity[first].double()).mean())
    assert estimate == pytest.approx(available, rel=0.2)


def test_unknown_scenario_names_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"scenario 'comerce' is unknown; did you mean 'ecommerce'"
    ):
        load_log(DataConfig(source="synthetic/comerce"))


@pytest.mark.parametrize("sizes", [{"num_users": 10**9}, {"num_items": 10**9}])
def test_sizes_beyond_memory_are_refused_with_the_estimate(sizes: dict[str, int]) -> None:
    config = DataConfig(source="synthetic/ecommerce", synthetic=SyntheticConfig(**sizes))
    with pytest.raises(ConfigError, match=r"1,000,000,000 .*needs about [\d,.]+ GB of memory"):
        load_log(config)


def test_new_items_appear_during_the_log() -> None:
    log, world = generate("ecommerce", SIZES, 4.0)
    day = (log.time - int(log.time.min()) // 86_400 * 86_400) // 86_400
    late = world.first_day > 0
    assert 0.1 < float(late.double().mean()) < 0.3
    assert bool((day >= world.first_day[log.item]).all())


def test_ecommerce_funnel_and_price() -> None:
    seen, log = shown("ecommerce").behaviours, log_of("ecommerce")
    rates = [float(seen[name].sum()) for name in ("click", "cart", "purchase")]
    assert rates[1] / rates[0] == pytest.approx(69_332 / 2_664_312, rel=0.35)
    assert rates[2] / rates[1] == pytest.approx(22_457 / 69_332, rel=0.35)
    assert float((seen["purchase"] * (1 - seen["cart"])).sum()) == 0.0
    bought = log.behaviours["purchase"] > 0
    pairs = torch.stack([log.user[bought], log.item[bought]], 1)
    assert pairs.unique(dim=0).shape[0] >= 0.95 * pairs.shape[0]  # hardly anything twice
    assert float(log.item_attributes["price"].min()) > 0


def test_streaming_watch_time_is_completion_times_length() -> None:
    log = log_of("streaming")
    behaviours, length = log.behaviours, log.item_attributes["length_minutes"]
    torch.testing.assert_close(
        behaviours["watch_time"], behaviours["completion"] * length[log.item]
    )
    finished = behaviours["completion"] >= 0.9
    pairs = torch.stack([log.user[finished], log.item[finished]], 1)
    assert pairs.unique(dim=0).shape[0] == pairs.shape[0]  # seen through once only
    share = torch.histc(behaviours["completion"], 5, 0.0, 1.0)
    assert float(share[[0, 4]].min()) > float(share[1:4].max())  # U-shaped


def test_social_friends_raise_clicks() -> None:
    """Posts that friends liked before are clicked more, and a world without influence less."""
    from marec_env.data.scenarios import numbers

    rate = float(shown("social").behaviours["click"].double().mean())
    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr(numbers, "FRIENDS_INFLUENCE", 0.0)
        lonely = generate("social", SIZES, 4.0)[0].impressions
    assert lonely is not None
    assert rate > 1.1 * float(lonely.behaviours["click"].double().mean())
    assert float(log_of("social").user_attributes["friends"].min()) >= 1


def test_social_sharing_is_concentrated() -> None:
    log = log_of("social")
    per_user = torch.zeros(log.num_users).index_add_(0, log.user, log.behaviours["like"])
    top = per_user.sort(descending=True).values[: log.num_users // 10].sum()
    assert float(top / per_user.sum()) > 0.25  # a tenth of the users, evenly: 0.1


def test_ads_rate_fatigue_and_payments() -> None:
    from marec_env.data.scenarios import numbers

    seen, log = shown("ads"), log_of("ads")
    rate = float(seen.behaviours["click"].double().mean())
    assert 0.003 < rate < 0.006
    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr(numbers, "WEAR_OUT", 0.0)
        fresh = generate("ads", SIZES, 4.0)[0].impressions
    assert fresh is not None
    assert float(fresh.behaviours["click"].double().mean()) > rate
    paid = seen.behaviours["payment"]
    assert bool((paid <= log.item_attributes["bid"][seen.item] + 1e-6).all())
    assert bool((log.behaviours["click"] == 0).any())  # own visits are in the log as well


def test_finance_suits_and_holds() -> None:
    seen, log = shown("finance"), log_of("finance")
    risk, limit = log.item_attributes["risk"], log.user_attributes["risk_limit"]
    assert bool((risk[seen.item] <= limit[seen.user]).all())
    assert set(risk.tolist()) <= set(map(float, range(1, 8)))
    bought = log.behaviours["purchase"] > 0
    held = log.behaviours["holding_days"]
    assert bool((held[bought] >= 1).all())
    assert bool((held <= SIZES.days).all())
    assert float(held[~bought].abs().max()) == 0.0
    sold = log.behaviours["sold"] > 0
    assert bool((bought | ~sold).all())
    assert 0 < int(sold.sum()) < int(bought.sum())
