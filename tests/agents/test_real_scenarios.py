"""The scenarios on logs of one's own: what a converted log brings is used."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from agents.config import RunConfig
from marec_env.config.loader import load
from marec_env.errors import DataError
from marec_env.shipped import PRESETS
from marec_env.simulator import Simulator
from marec_env.world import build_world

USERS, ITEMS = 24, 700
NAMES = ("ads", "ecommerce", "finance", "social", "streaming")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with all that converters may give: prices, risks, friends, impressions."""
    folder, draw = tmp_path_factory.mktemp("log"), random.Random(3)
    files = {
        "items.csv": ["item_id,title,genres,price,risk"],
        "users.csv": ["user_id,risk_limit"],
        "interactions.csv": ["user_id,item_id,rating,timestamp"],
        "impressions.csv": ["user_id,item_id,timestamp,position,click,propensity"],
        "friends.csv": ["user_id,friend_id"],
    }
    for item in range(ITEMS):
        kind = ("red", "green", "blue")[item % 3]
        price, risk = 1 + item % 7, 1 + item % 7
        files["items.csv"].append(f"i{item},{kind} thing {item},{kind},{price},{risk}")
    for user in range(USERS):
        files["users.csv"].append(f"u{user},{3 + user % 5}")
        files["friends.csv"].append(f"u{user},u{(user + 1) % USERS}")
        for time in range(12):
            item = 3 * draw.randrange(ITEMS // 3) + user % 3
            when = 1_700_000_000 + 100 * time
            files["interactions.csv"].append(f"u{user},i{item},{draw.choice((1, 300))},{when}")
            click = int(time % 4 == 0)
            row = f"u{user},i{item},{when},{time % 3},{click},0.01"
            files["impressions.csv"].append(row)
    for name, rows in files.items():
        (folder / name).write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_scenario_runs_on_the_log_that_is_given(name: str, log: Path) -> None:
    settings = [
        f"environment.data.source={log}",
        "environment.embeddings.encoder=hashing",
        "environment.embeddings.reduction.dimension=8",
        "environment.knowledge.sweeps=1",
        "environment.population.sweeps=1",
    ]
    file = PRESETS / "scenarios" / f"{name}-real.yaml"
    config = load(file, RunConfig, settings).environment
    world = build_world(config)
    simulator = Simulator(world, 6, autoreset=False)
    for _ in range(2):
        step = simulator.step(simulator.default_actions())
    assert all(bool(torch.isfinite(reward).all()) for reward in step.rewards.values())
    behaviours = set(config.users.behaviours.names)
    assert simulator.last is not None
    assert behaviours <= set(simulator.last.feedback.behaviours)
    if name == "social":
        friends = simulator.users.modules["friends"].friends  # type: ignore[attr-defined]
        place = {user: number for number, user in enumerate(world.log.user_ids)}
        own, before, after = place["u5"], place["u4"], place["u6"]
        assert set(friends[own].tolist()) == {before, after, -1}
    if name == "finance":
        slate, people = simulator.last.slate, simulator.users.user_index
        risks = world.catalog.attributes["risk"][slate]
        limits = world.population.user_attributes["risk_limit"][people]
        assert bool((risks <= limits.unsqueeze(1)).all())
    if name == "ads":  # of the times 0, 3, 6 and 9, at which the first place was shown, one is
        assert config.population.random_click_rate is None
        position_0 = [time for time in range(12) if time % 3 == 0]
        rate = sum(time % 4 == 0 for time in position_0) / len(position_0)
        users = simulator.users
        items = torch.arange(ITEMS).expand(6, -1)
        assert float(users.click_probability(items).mean()) == pytest.approx(rate, abs=0.15)


def test_without_a_log_the_error_says_what_to_give() -> None:
    config = load(PRESETS / "scenarios" / "social-real.yaml", RunConfig).environment
    with pytest.raises(
        DataError, match=r"'give data.source': no such folder; allowed: .* a folder"
    ):
        build_world(config)
