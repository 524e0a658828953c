"""True users and items: lengths, shares, calibration, histories."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from marec_env.catalog.population import thinned
from marec_env.data.log import InteractionLog
from marec_env.data.population import (
    PopulationConfig,
    build_population,
    calibrate_intercept,
    topic_affinity,
)
from marec_env.errors import DataError

TOPICS = torch.arange(60) % 6


def test_factors_have_unit_length_and_the_topic_share(blocks: InteractionLog) -> None:
    share = 0.3
    population = build_population(
        PopulationConfig(dim=4, topic_share=share, ridge=1.0), blocks, TOPICS, 6
    )
    for factors in (population.user_factors, population.item_factors):
        torch.testing.assert_close(factors.norm(dim=1), torch.ones(factors.shape[0]))
        torch.testing.assert_close(
            factors[:, 4:].square().sum(1), torch.full((factors.shape[0],), share)
        )


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.6])
def test_mean_click_probability_is_the_configured_one(blocks: InteractionLog, rate: float) -> None:
    config = PopulationConfig(dim=4, random_click_rate=rate)
    p = build_population(config, blocks, TOPICS, 6)
    logits = p.scale * p.user_factors @ p.item_factors.T + p.quality + p.intercept
    assert float(torch.sigmoid(logits).mean()) == pytest.approx(rate, rel=1e-4)


def test_taste_and_topics_of_the_log_are_in_the_factors(blocks: InteractionLog) -> None:
    near = torch.arange(80)[:, None] % 4 == torch.arange(60) % 4
    for share in (0.0, 1.0):  # topics that coincide with the blocks: both shares must tell
        config = PopulationConfig(dim=4, topic_share=share, ridge=1.0)
        p = build_population(config, blocks, torch.arange(60) % 4, 4)
        score = p.user_factors @ p.item_factors.T
        assert float(score[near].mean()) > 0.5 + float(score[~near].mean())


def test_topic_affinity_by_hand(
    make_small: Callable[..., InteractionLog],
) -> None:
    log = make_small([0, 0, 0, 1], [0, 0, 1, 1], [5, 5, 5, 5], [1, 2, 3, 4])
    affinity = topic_affinity(log, torch.tensor([0, 1]), 2, smoothing=1.0)
    overall = torch.tensor([3 / 6, 3 / 6])  # counts 2 and 2, one more each
    first = torch.log((torch.tensor([2.0, 1.0]) + overall) / 4 / overall)
    torch.testing.assert_close(affinity[0], first - first.mean())
    assert float(affinity[1, 1]) > 0 > float(affinity[1, 0])


def test_histories_keep_the_newest_oldest_first(
    make_small: Callable[..., InteractionLog],
) -> None:
    log = make_small([0, 0, 0, 1], [2, 0, 1, 1], [5, 1, 4, 3], [30, 10, 20, 5])
    population = build_population(
        PopulationConfig(dim=2, history=2), log, torch.tensor([0, 0, 0]), 1
    )
    items, liked = population.history.of(torch.tensor([0, 1]))
    assert items.tolist() == [[1, 2], [-1, 1]]
    assert liked.tolist() == [[True, True], [False, False]]
    assert population.history.item is log.item  # no copy, however long the pasts


def test_intercept_is_exact() -> None:
    logits = torch.tensor([-30.0, 0.0, 2.0, 40.0])
    found = calibrate_intercept(logits, 0.4)
    assert float(torch.sigmoid(logits.double() + found).mean()) == pytest.approx(0.4, abs=1e-9)


@pytest.mark.parametrize("topics", [torch.zeros(3, dtype=torch.int64), torch.full((60,), 6)])
def test_topics_that_do_not_fit_are_refused(blocks: InteractionLog, topics: torch.Tensor) -> None:
    with pytest.raises(DataError, match=r"topics: need one of 0 \.\.\. 5 for each of 60 items"):
        build_population(PopulationConfig(dim=4), blocks, topics, 6)


def test_few_of_a_large_catalogs_items_stand_for_all_whatever_their_order() -> None:
    assert thinned(943, 1682, 1 << 22) == (slice(None, None, 1), slice(None))
    assert thinned(5000, 1682, 1 << 22) == (slice(None, None, 3), slice(None))
    users, items = thinned(10_000, 1_000_000, 1 << 22)
    assert users == slice(None, None, 20)
    assert isinstance(items, torch.Tensor)
    assert len(set(items.tolist())) == 8192
    assert 0 <= int(items.min()) < 400
    assert 999_600 < int(items.max()) < 1_000_000
    for period in (7, 64, 1000):
        counts = torch.bincount(items % period, minlength=period)
        assert int(counts.max()) <= 2.5 * 8192 / period


def test_tastes_drift_towards_other_users_and_nobody_stays(blocks: InteractionLog) -> None:
    def tastes(share: float) -> torch.Tensor:
        config = PopulationConfig(dim=4, ridge=1.0, taste_drift=share)
        return build_population(config, blocks, TOPICS, 6).user_factors

    before, half, after = tastes(0.0), tastes(0.5), tastes(1.0)
    distance = torch.cdist(after, before)
    nearest = distance.argmin(dim=1)  # at the end each has the whole taste of another
    assert float(distance.amin(dim=1).max()) < 1e-3
    assert sorted(nearest.tolist()) == list(range(len(before)))
    assert not (nearest == torch.arange(len(before))).any()
    torch.testing.assert_close(half.norm(dim=1), torch.ones(len(half)))
    torch.testing.assert_close(
        torch.nn.functional.normalize(before + after, dim=1), half, atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("logits", [1.5, -0.5])
def test_fashion_moves_everybodys_liking_by_age(blocks: InteractionLog, logits: float) -> None:
    age = torch.arange(60.0).roll(7)
    config = {"dim": 4, "random_click_rate": 0.2}
    plain = build_population(PopulationConfig(**config), blocks, TOPICS, 6, age=age)
    moved = build_population(PopulationConfig(**config, fashion=logits), blocks, TOPICS, 6, age=age)
    change = moved.quality - plain.quality
    assert float(change.std(correction=0)) == pytest.approx(abs(logits), rel=1e-4)
    assert (int(change.argmax()) == int(age.argmin())) == (logits > 0)
    chance = moved.scale * moved.user_factors @ moved.item_factors.T + moved.quality
    assert float(torch.sigmoid(chance + moved.intercept).mean()) == pytest.approx(0.2, rel=1e-4)


def test_fashion_needs_ages(blocks: InteractionLog) -> None:
    with pytest.raises(DataError, match=r"population\.fashion"):
        build_population(PopulationConfig(dim=4, fashion=1.0), blocks, TOPICS, 6)
