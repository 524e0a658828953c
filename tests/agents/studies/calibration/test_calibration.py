"""Calibration: measures against known values, no leaks, and recovery of a known click model."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from agents.studies.calibration import click_model
from agents.studies.calibration.click_model import (
    Cases,
    area_under_curve,
    evaluate_forecast,
    fit_coefficients,
    judge_click_model,
)
from agents.studies.calibration.page import render_page
from agents.studies.calibration.report import Calibration, calibrate, consumption_of, jensen_shannon
from agents.studies.records import plain
from marec_env import random
from marec_env.catalog.build import CatalogConfig, build_catalog
from marec_env.data.log import InteractionLog
from marec_env.data.population import PopulationConfig, build_population
from marec_env.data.propensity import even_click_rate
from marec_env.data.times import session_lengths
from marec_env.users import UsersConfig, make_users
from marec_env.users.config import IntentConfig, NoBoredom


def test_measures_by_hand() -> None:
    score = np.array([0.1, 0.4, 0.4, 0.8])
    event = np.array([False, True, False, True])
    assert area_under_curve(score, event) == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert np.isnan(area_under_curve(score, np.ones(4, dtype=bool)))
    assert jensen_shannon(np.array([1.0, 1.0]), np.array([2.0, 2.0])) == pytest.approx(0.0)
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 3.0])) == pytest.approx(1.0)


def test_perfect_forecasts_are_calibrated_and_overconfident_ones_are_not() -> None:
    generator = np.random.default_rng(0)
    truth = generator.uniform(0.05, 0.95, 20_000)
    event = generator.uniform(size=truth.size) < truth
    honest = evaluate_forecast(truth, event)
    sharper = evaluate_forecast(1 / (1 + ((1 - truth) / truth) ** 3), event)
    assert honest.calibration_error < 0.02 < 0.1 < sharper.calibration_error
    assert honest.auc == pytest.approx(sharper.auc)
    assert honest.log_loss < sharper.log_loss
    assert honest.log_loss < honest.null_log_loss


def test_sessions_are_cut_at_half_an_hour() -> None:
    user = torch.tensor([0, 0, 0, 1, 1])
    time = torch.tensor([0, 1800, 3601, 3602, 3603])
    assert session_lengths(user, time).tolist() == [2, 1, 2]


def test_parts_follow_each_other_in_time(blocks: InteractionLog, ecommerce: InteractionLog) -> None:
    parts = click_model.split(blocks).interactions
    same_user = blocks.user[1:] == blocks.user[:-1]
    assert bool((parts[1:] >= parts[:-1])[same_user].all())
    assert float((parts == click_model.TEST).double().mean()) == pytest.approx(0.2, abs=0.03)
    both = click_model.split(ecommerce)
    assert both.impressions is not None
    assert ecommerce.impressions is not None
    last_train = int(ecommerce.impressions.time[both.impressions == click_model.TRAIN].max())
    assert int(ecommerce.time[both.interactions == click_model.TUNE].min()) > last_train - 1


def test_a_log_without_times_is_split_at_random(ecommerce: InteractionLog) -> None:
    shown = ecommerce.impressions
    assert shown is not None
    timeless = dataclasses.replace(
        ecommerce,
        time=torch.zeros_like(ecommerce.time),
        impressions=dataclasses.replace(shown, time=torch.zeros_like(shown.time)),
    )
    parts = click_model.split(timeless)
    for part in (parts.interactions, parts.impressions):
        assert part is not None
        shares = torch.bincount(part) / part.numel()
        torch.testing.assert_close(shares, torch.tensor([0.6, 0.2, 0.2]), atol=0.04, rtol=0.0)


def test_random_negatives_were_never_met(blocks: InteractionLog) -> None:
    part = click_model.split(blocks).interactions == click_model.TEST
    cases = click_model.cases_against_random(blocks, part, 4, seed=0)
    met = set(zip(blocks.user.tolist(), blocks.item.tolist(), strict=True))
    negative = ~cases.event
    assert met.isdisjoint(
        zip(cases.user[negative].tolist(), cases.item[negative].tolist(), strict=True)
    )
    assert int(negative.sum()) > int(cases.event.sum())


def test_known_click_model_is_recovered(blocks: InteractionLog) -> None:
    population = build_population(
        PopulationConfig(dim=4, topic_share=0.2), blocks, torch.arange(60) % 6, 6
    )
    generator = torch.Generator().manual_seed(1)
    user = torch.randint(0, 80, (60_000,), generator=generator)
    item = torch.randint(0, 60, (60_000,), generator=generator)
    position = torch.randint(0, 8, (60_000,), generator=generator)
    fit = (population.user_factors[user] * population.item_factors[item]).sum(1)
    chance = torch.sigmoid(-1.0 + 3.0 * fit + 2.0 * population.quality[item]) * 0.8**position
    event = torch.rand(chance.shape, generator=generator) < chance
    found = fit_coefficients(population, Cases(user, item, event, position))
    assert found.intercept == pytest.approx(-1.0, abs=0.1)
    assert found.scale == pytest.approx(3.0, abs=0.15)
    assert found.quality_weight == pytest.approx(2.0, abs=0.15)
    assert found.decay == pytest.approx(0.8, abs=0.01)


def test_held_out_judgement_does_not_see_the_future(blocks: InteractionLog) -> None:
    """With likes of the last part shuffled among users, nothing can be foretold."""
    topics = torch.zeros(60, dtype=torch.int64)
    config = PopulationConfig(dim=4, topic_share=0.0, ridge=1.0)
    reports = {task.name: task for task in judge_click_model(blocks, config, topics, 1)}
    assert reports["random"].forecast.auc > 0.75
    noise = torch.Generator().manual_seed(0)
    shuffled = InteractionLog(
        **{
            name: getattr(blocks, name)
            for name in InteractionLog.__slots__
            if name not in ("item",)
        },
        item=torch.randint(0, 60, blocks.item.shape, generator=noise),
    )
    blind = {task.name: task for task in judge_click_model(shuffled, config, topics, 1)}
    assert blind["random"].forecast.auc == pytest.approx(0.5, abs=0.08)


def test_random_policy_scores_at_the_rate_of_the_log(ecommerce: InteractionLog) -> None:
    """Property 11, end to end: the log's impressions give the rate, the simulator keeps it."""
    assert ecommerce.impressions is not None
    rate = even_click_rate(ecommerce.impressions)
    topics = torch.arange(ecommerce.num_items) % 8
    population = build_population(PopulationConfig(random_click_rate=rate), ecommerce, topics, 8)
    config = UsersConfig(intent=IntentConfig(weight=0.0), boredom=NoBoredom())
    users = make_users(config, population, 2000)
    keys = random.session_keys(0, torch.arange(2000))
    users.reset(keys)
    # A slate of one item each, so that examination plays no part; the same user ten times.
    rounds = []
    for step in range(10):
        slate = random.integers(keys, step, "test/slate", 1, ecommerce.num_items)
        rounds.append(users.respond(slate).clicks)
    per_session = torch.cat(rounds, 1).double().mean(1)
    error = float(per_session.std()) / len(per_session) ** 0.5
    assert error < 0.05 * rate
    assert float(per_session.mean()) == pytest.approx(rate, abs=4 * error)


@pytest.fixture(scope="module")
def report(ecommerce: InteractionLog) -> Calibration:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(ecommerce.num_items, 8, generator=generator)
    catalog = build_catalog(ecommerce, embeddings, CatalogConfig(num_topics=8))
    config = PopulationConfig()
    population = build_population(config, ecommerce, catalog.topics, 8)
    users = make_users(UsersConfig(), population, 64)
    return calibrate(
        ecommerce, catalog, config, users, source="<synthetic>", slate_size=5, max_requests=6
    )


def test_report_is_json_with_every_measure(report: Calibration) -> None:
    content = json.loads(json.dumps(plain(report), allow_nan=False))
    assert {task["name"] for task in content["tasks"]} == {"rated", "random", "shown"}
    assert {row["name"] for row in content["comparisons"]} >= {
        "like per click",
        "cart per click",
        "clicks per session",
        "concentration on items (Gini)",
        "share of the largest topic",
    }
    shown = next(task for task in report.tasks if task.name == "shown")
    assert shown.fitted.decay == pytest.approx(0.85, abs=0.05)  # the generator's own
    assert shown.forecast.auc > 0.6
    assert report.suggestions["population.random_click_rate"] > 0


@pytest.mark.figures
def test_page_is_self_contained_and_described(report: Calibration) -> None:
    page = render_page(report)
    assert page.count('role="img"') == page.count("<svg") == 6
    assert "&lt;synthetic&gt;" in page
    assert "<synthetic>" not in page
    assert "<script" not in page
    assert "src=" not in page
    assert page == render_page(report)  # identifiers in the drawings do not change from run to run


def test_rates_are_those_of_clicked_impressions_where_there_are_any(
    ecommerce: InteractionLog, blocks: InteractionLog
) -> None:
    shown = ecommerce.impressions
    assert shown is not None
    topics = torch.zeros(ecommerce.num_items, dtype=torch.int64)
    rates = consumption_of(ecommerce, topics, 1).rates
    clicks = float(shown.behaviours["click"].sum())
    assert rates["cart"] == pytest.approx(float(shown.behaviours["cart"].sum()) / clicks)
    plain = dataclasses.replace(blocks, behaviours={"purchase": blocks.liked.float()})
    rates = consumption_of(plain, torch.zeros(blocks.num_items, dtype=torch.int64), 1).rates
    assert rates["purchase"] == pytest.approx(rates["like"])
