"""Every scenario's preset plays, and its users bring what the scenario is about."""

from __future__ import annotations

import pytest
import torch

from marec_env.environment_config import EnvironmentConfig
from marec_env.scenarios import SCENARIO_CHANGES, scenario_environment
from marec_env.simulator import Simulator
from marec_env.world import build_world

OUTCOMES = {
    "ecommerce": {"carts", "purchases", "revenue"},
    "streaming": {"watch_minutes", "finished"},
    "social": {"likes", "shares"},
    "ads": {"conversions", "revenue"},
    "finance": {"purchases", "holding_days", "holding_return", "unsuitable"},
}


def small(name: str) -> EnvironmentConfig:
    config = scenario_environment(name)
    sizes = {"num_users": 80, "num_items": 400, "days": 12}
    return EnvironmentConfig.model_validate(
        {
            **config.model_dump(),
            "max_requests": 8,
            "embeddings": {"encoder": "hashing", "cache": False},
            "data": {**config.data.model_dump(), "synthetic": sizes},
        },
        strict=False,
    )


@pytest.mark.parametrize("name", SCENARIO_CHANGES)
def test_outcomes_add_up_over_an_episode(name: str) -> None:
    simulator = Simulator(build_world(small(name)), 64, autoreset=False)
    simulator.begin(torch.arange(64), 0)
    sums: dict[str, torch.Tensor] = {}
    alive = torch.ones(64, dtype=torch.bool)
    reported: dict[str, torch.Tensor] = {}
    for _ in range(8):
        step = simulator.step(simulator.default_actions())
        assert simulator.last is not None
        outcomes = simulator.last.feedback.outcomes
        assert set(outcomes) == OUTCOMES[name]
        for key, value in outcomes.items():
            assert torch.isfinite(value).all()
            sums[key] = sums.get(key, torch.zeros(64)) + value * alive
        ended = (step.terminated | step.truncated) & alive
        if bool(ended.any()):
            rows = (step.terminated | step.truncated).nonzero().squeeze(1)
            for key in outcomes:
                total = reported.setdefault(key, torch.zeros(64))
                total[rows] = torch.where(ended[rows], step.episodes[key], total[rows])
        alive &= ~ended
    assert not bool(alive.any())
    for key, value in sums.items():
        assert torch.allclose(reported[key], value, rtol=1e-4, atol=1e-4), key
    rare = {"conversions", "revenue"} if name == "ads" else set()
    for key in OUTCOMES[name] - rare - {"unsuitable"}:
        assert float(sums[key].abs().sum()) > 0, key


def test_finance_is_audited_and_ads_are_rarely_clicked() -> None:
    assert "auditor" in scenario_environment("finance").pipeline.components
    ads = build_world(small("ads")).population
    logits = ads.scale * ads.user_factors @ ads.item_factors.T + ads.quality + ads.intercept
    assert float(torch.sigmoid(logits).mean()) < 0.01
    assert ads.providers is not None and int(ads.providers.max()) > 0
