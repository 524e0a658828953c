"""Supply: reserve, arrivals, ageing and leaving providers."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from marec_env import random
from marec_env.errors import ConfigError
from marec_env.users import UsersConfig, make_users
from marec_env.users.base import ARRIVE, PROVIDER
from marec_env.users.config import SupplyConfig
from marec_env.users.dynamics import Supply
from tests.marec_env.users.conftest import shown_items


@pytest.fixture
def shop(population):
    return dataclasses.replace(population, providers=torch.arange(40) % 4)


def _update(supply: Supply, item: int, click: float, step: int, arrive: float, pick: float) -> None:
    slate, clicks = torch.tensor([[item]]), torch.tensor([[click]])
    supply.update(shown_items(slate, clicks, step=step, draws={ARRIVE: arrive, PROVIDER: pick}))


def _supply(shop, sessions: int = 1, **values: float) -> Supply:
    return Supply(UsersConfig(supply=SupplyConfig(**values)), shop, sessions)


def test_credit_and_leaving(shop) -> None:
    supply = _supply(shop, reserve=0.0, credit_memory=0.5, leave_below=0.3)
    assert supply.available().all()
    _update(supply, 0, 1.0, 0, 0.9, 0.5)
    assert supply.credit.tolist() == [[1.5, 0.5, 0.5, 0.5]]
    _update(supply, 0, 0.0, 1, 0.9, 0.5)
    assert supply.present.tolist() == [[True, False, False, False]]
    assert supply.available()[0].tolist() == [item % 4 == 0 for item in range(40)]


def test_arrivals_prefer_providers_with_credit(shop) -> None:
    supply = _supply(shop, reserve=0.5, arrival=1.0, credit_memory=0.5, leave_below=0.0)
    assert supply.available().sum() == 20
    # Credits .5 + 1, .5, .5, .5 weigh 6.25 and thrice 2.25: the first has 0.48 of the sum.
    _update(supply, 0, 1.0, 6, 0.0, 0.47)
    assert supply.released.tolist() == [[6, 5, 5, 5]]
    assert bool(supply.available(torch.tensor([[20]])))
    assert supply.arrived[0, 20] == 7
    aging = _supply(shop, aging=0.1, aging_limit=0.5)
    aging.arrived[0, 20] = 7
    found = aging.adjust(torch.zeros(1, 2), shown_items(torch.tensor([[20, 0]]), step=9))
    assert torch.allclose(found, torch.tensor([[-0.2, -0.5]]))


def test_arrivals_are_as_frequent_as_stated(shop) -> None:
    many = 20_000
    supply = _supply(shop, many, arrival=0.3)
    before = supply.released.sum()
    draw = random.uniform(random.session_keys(1, torch.arange(many)), 0, "test", 2)
    zero = torch.zeros(many, 1)
    draws = {ARRIVE: draw[:, 0], PROVIDER: draw[:, 1]}
    supply.update(shown_items(zero.long(), zero, draws=draws))
    assert abs(float(supply.released.sum() - before) / many - 0.3) < 0.01


def test_what_is_gone_is_not_clicked(shop) -> None:
    users = make_users(UsersConfig(supply=SupplyConfig(enabled=True, reserve=0.5)), shop, 500)
    users.reset(random.session_keys(1, torch.arange(500)))
    gone = torch.arange(20, 30).expand(500, 10)
    assert users.click_probability()[:, 20:].max() == 0
    assert users.respond(gone).clicks.sum() == 0
    assert users.respond(torch.arange(10).expand(500, 10)).clicks.sum() > 0


def test_supply_needs_providers(population) -> None:
    with pytest.raises(ConfigError, match="no providers"):
        make_users(UsersConfig(supply=SupplyConfig(enabled=True)), population, 2)
