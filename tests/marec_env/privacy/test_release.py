"""A private release: bounded contributions, exact sums, and nobody else who reads the log."""

from __future__ import annotations

import math
import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from marec_env import world as worlds
from marec_env.data.config import DataConfig
from marec_env.data.log import InteractionLog, load_log
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError
from marec_env.privacy.config import ContributionConfig, PrivacyConfig
from marec_env.privacy.mechanisms import gaussian_mu
from marec_env.privacy.release import (
    COUNTS_SHARE,
    GRID,
    Release,
    co_occurrence,
    contributions,
    counts_of,
    release_log,
)
from tests.worlds import small_environment

ROOT = Path(__file__).parents[3]
BOUNDS = ContributionConfig(events=5, items=20)


def small_log(**changes: Any) -> InteractionLog:
    synthetic = {"num_users": 90, "num_items": 60, **changes}
    return load_log(
        DataConfig.model_validate({"source": "synthetic/streaming", "synthetic": synthetic})
    )


def without_user(log: InteractionLog, user: int) -> InteractionLog:
    """Return the log as it were had the user never been in it, positions closed up."""
    left = log.select(log.user != user)
    ids = log.user_ids[:user] + log.user_ids[user + 1 :]
    return replace(left, user=left.user - (left.user > user).to(torch.int64), user_ids=ids)


def test_a_user_contributes_his_own_bounded_items_whoever_else_is_there() -> None:
    log = small_log()
    events = contributions(log, BOUNDS)
    each = torch.bincount(events.user, minlength=log.num_users)
    consumed = [len(set(log.item[log.user == u].tolist())) for u in range(log.num_users)]
    assert each.tolist() == [min(5, number) for number in consumed]
    assert max(consumed) > 5 > min(consumed)
    fewer = contributions(without_user(log, 7), BOUNDS)
    others = events.user != 7
    assert torch.equal(fewer.item, events.item[others])
    assert torch.equal(fewer.liked, events.liked[others])


def test_sums_change_by_one_sensitivity_at_most_and_exactly_by_the_user() -> None:
    log = small_log()
    items = torch.arange(20)
    events = contributions(log, BOUNDS)
    counts = counts_of(events, log.num_items, BOUNDS)
    gram = co_occurrence(events, items, log.num_items)
    longest = 0.0
    for user in (0, 7, 31, 89):
        fewer = contributions(without_user(log, user), BOUNDS)
        by_count = counts - counts_of(fewer, log.num_items, BOUNDS)
        by_gram = gram - co_occurrence(fewer, items, log.num_items)
        assert float(by_count.norm()) <= GRID and float(by_gram.norm()) <= GRID**2
        longest = max(longest, float(by_gram.norm()) / GRID**2)
        # To the bit: the sum without the user is the sum less the user's part.
        alone = events.user == user
        mine = co_occurrence(
            type(events)(events.user[alone], events.item[alone], events.liked[alone]),
            items,
            log.num_items,
        )
        assert torch.equal(by_gram, mine)
    assert longest > 0.99  # the bound is tight, noise is not wasted


def test_noise_has_the_stated_scale() -> None:
    log = small_log()
    config = PrivacyConfig(epsilon=2.0, contribution=BOUNDS)
    noisy = release_log(log, config)
    clean = contributions(log, BOUNDS)
    counts = counts_of(clean, log.num_items, BOUNDS) / math.floor(GRID / math.sqrt(5))
    gram = co_occurrence(clean, noisy.items, log.num_items) / GRID**2
    mu = gaussian_mu(2.0, 1e-5)
    sigma = 1 / (mu * math.sqrt(1 - COUNTS_SHARE))
    error = noisy.gram - gram
    assert torch.equal(error, error.T)
    off = error[torch.triu(torch.ones_like(error), 1) > 0]
    assert float(off.std()) == pytest.approx(sigma / math.sqrt(2), rel=0.15)
    assert float(error.diagonal().std()) == pytest.approx(sigma, rel=0.5)
    spread = float((noisy.counts - counts).std())
    assert spread == pytest.approx(math.sqrt(5) / (mu * math.sqrt(COUNTS_SHARE)), rel=0.2)
    assert noisy.statement["epsilon"] == pytest.approx(2.0)
    # Released numbers lie on the grid: their last bits tell nothing of the sums.
    assert torch.equal((noisy.gram * GRID**2).round(), noisy.gram * GRID**2)


def test_the_same_log_gives_the_same_release_and_another_log_other_noise() -> None:
    log = small_log()
    config = PrivacyConfig(epsilon=2.0, contribution=BOUNDS)
    first = release_log(log, config)
    assert release_log(log, config).fingerprint == first.fingerprint
    other = release_log(replace(log, fingerprint="another"), config)
    assert float((other.counts - first.counts).abs().min()) > 0


def test_without_noise_the_statistics_are_those_of_the_log() -> None:
    log = small_log()
    config = PrivacyConfig(epsilon=None, contribution=ContributionConfig(events=60, items=60))
    plain = release_log(log, config)
    pairs = torch.unique(log.user * log.num_items + log.item)
    counted = torch.bincount(pairs % log.num_items, minlength=log.num_items).to(torch.float32)
    assert torch.allclose(plain.popularity(), counted / counted.max(), rtol=1e-3)
    vectors, _ = plain.components()
    assert torch.allclose(vectors @ vectors.T, plain.gram, atol=1e-6)
    assert "nothing is guaranteed" in plain.line


def test_users_drawn_from_a_release_consume_as_it_says() -> None:
    log = load_log(DataConfig())
    release = release_log(log, PrivacyConfig(epsilon=None))
    drawn = release.draw_log(log)
    pairs = drawn.user * drawn.num_items + drawn.item
    assert len(torch.unique(pairs)) == drawn.num_interactions
    counts = torch.bincount(drawn.item, minlength=drawn.num_items).double()
    expected = release.counts.sum(0)
    assert float(torch.corrcoef(torch.stack([counts, expected]))[0, 1]) > 0.95
    again = release_log(
        drawn, PrivacyConfig(epsilon=None, contribution=release.config.contribution)
    )
    # Which films go together, popularity aside, is that of the log: of the second component.
    mine, theirs = release.components()[0][:, 1], torch.zeros(drawn.num_items).double()
    theirs[again.items] = again.components()[0][:, 1]
    found = torch.corrcoef(torch.stack([mine, theirs[release.items]]))[0, 1].abs()
    assert float(found) > 0.8


def of_recommender(world: worlds.World) -> dict[str, Any]:
    """Return everything that code on the recommender's side reads, by name."""
    parts: dict[str, Any] = {
        "knowledge": world.knowledge,
        "catalog": world.catalog,
        "learned": world.learned,
        "factors": world.learned.factors,
        "visible_log": world.visible_log,
        "texts": world.texts,
    }
    found: dict[str, Any] = {}
    for name, part in parts.items():
        for item in fields(part):
            if item.name not in ("indexes", "factors", "known_users"):
                found[f"{name}.{item.name}"] = getattr(part, item.name)
    return found


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))
    if is_dataclass(one):
        return all(same(getattr(one, part.name), getattr(other, part.name)) for part in fields(one))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(v, other[k]) for k, v in one.items())
    return bool(one == other)


@pytest.fixture(scope="module")
def two_worlds() -> dict[str, tuple[worlds.World, worlds.World]]:
    """Worlds of two logs that differ in one user's events; with ``release``, from one release."""
    found = {}
    for users in ("none", "log", "release"):
        privacy = None if users == "none" else {"epsilon": 3.0, "users": users}
        section = small_environment(
            60,
            80,
            knowledge={"dim": 8, "neighbours": 20},
            text={"notes": True, "user_every": 2},
        )
        section["data"]["privacy"] = privacy
        config = EnvironmentConfig.model_validate(section)
        with pytest.MonkeyPatch.context() as patch:
            kept: list[Release] = []

            def once(
                log: InteractionLog, config: PrivacyConfig, kept: list[Release] = kept
            ) -> Release:
                kept[:] = kept or [release_log(log, config)]
                return kept[0]

            patch.setattr(worlds, "release_log", once)
            worlds._build.cache_clear()
            first = worlds.build_world(config)
            log = load_log(config.data)
            rows = log.user == 11
            item = torch.where(rows, (log.item * 7 + 3) % log.num_items, log.item)
            time = torch.where(rows, log.time - 90 * 86_400, log.time)
            rating = torch.where(rows, 6.0 - log.rating, log.rating)
            other = replace(
                log,
                item=item,
                time=time,
                rating=rating,
                fingerprint="of other events",
                impressions=None,
            )
            patch.setattr(worlds, "load_log", lambda _, other=other: other)
            worlds._build.cache_clear()
            found[users] = (first, worlds.build_world(config))
            worlds._build.cache_clear()
    return found


READERS = (
    "knowledge.cf", "knowledge.neighbours", "knowledge.popularity", "knowledge.age",
    "knowledge.by_popularity", "knowledge.by_freshness", "knowledge.freshness",
    "knowledge.topic_share", "knowledge.centre_text", "knowledge.centre_cf", "knowledge.version",
    "catalog.popularity", "catalog.age", "factors.item", "learned.similarity",
    "learned.popularity", "visible_log.user", "visible_log.item", "visible_log.rating",
    "visible_log.time", "visible_log.fingerprint",
)  # fmt: skip
"""What differs between the two logs where nothing is private."""
FROM_ELSEWHERE = ("visible_log.user",)  # the changed user has as many events as before


@pytest.mark.parametrize("reader", READERS)
def test_each_reader_sees_the_release_and_not_the_log(
    two_worlds: dict[str, tuple[worlds.World, worlds.World]], reader: str
) -> None:
    raw, other = map(of_recommender, two_worlds["none"])
    if reader not in FROM_ELSEWHERE:
        assert not same(raw[reader], other[reader]), "the two logs do not tell this reader apart"
    for users in ("log", "release"):
        first, second = map(of_recommender, two_worlds[users])
        assert same(first[reader], second[reader])


def test_nothing_of_the_recommenders_side_reads_the_log(
    two_worlds: dict[str, tuple[worlds.World, worlds.World]],
) -> None:
    for users in ("log", "release"):
        first, second = map(of_recommender, two_worlds[users])
        assert [name for name in first if not same(first[name], second[name])] == []
    kept, changed = two_worlds["log"]
    assert not torch.equal(kept.population.user_factors, changed.population.user_factors)
    assert not torch.equal(kept.visible_log.item, kept.log.item)


def test_users_simulated_from_a_release_are_of_it_alone(
    two_worlds: dict[str, tuple[worlds.World, worlds.World]],
) -> None:
    first, second = two_worlds["release"]
    for item in fields(first.population):
        assert same(getattr(first.population, item.name), getattr(second.population, item.name))
    assert first.log.fingerprint == second.log.fingerprint == first.visible_log.fingerprint
    assert first.log.user_ids[0] == "drawn-0"
    assert torch.equal(first.learned.known_users, second.learned.known_users)
    assert all("private release: ε = 3" in one.log.warnings[-1] for one in (first, second))
    # The limits that users declared are not released: rules that need them say so.
    section = small_environment(60, 80)
    section["data"] |= {"source": "synthetic/finance", "privacy": {"epsilon": 3.0}}
    finance = worlds.build_world(EnvironmentConfig.model_validate(section))
    with pytest.raises(ConfigError, match="have no 'risk_limit'"):
        _ = finance.user_limits


def test_baselines_learn_from_the_release(
    two_worlds: dict[str, tuple[worlds.World, worlds.World]],
) -> None:
    from agents.baselines.linear import EASE, ItemKNN
    from agents.baselines.scoring import training_log

    liked = torch.tensor([[0, 3, 9], [5, -1, -1]])
    for kind in (EASE, ItemKNN):
        raw = [kind(training_log(one.visible_log)).scores_of(liked) for one in two_worlds["none"]]
        assert not torch.equal(*raw)
        private = [
            kind(training_log(one.visible_log)).scores_of(liked) for one in two_worlds["log"]
        ]
        assert torch.equal(*private)


def test_the_places_that_read_the_log_itself_are_known() -> None:
    """Who else would, voids the statement: it belongs to ``visible_log`` or onto this list."""
    found = set()
    for folder in ("marec_env", "agents"):
        for path in (ROOT / folder).rglob("*.py"):
            if re.search(r"\bworld\.log\b|\bself\.log\.user", path.read_text()):
                found.add(str(path.relative_to(ROOT)))
    assert found <= {
        "marec_env/world.py",  # limits that users declared
        "agents/commands/cohort.py",  # a fingerprint: whether results can be shared
        "agents/runs/environment.py",  # likewise, in a run's manifest
        "agents/commands/studies.py",  # calibration compares the log with its simulation
        "agents/studies/privacy/teams.py",  # an attack on teams that no release stands before
        "agents/studies/privacy/federated_teams.py",  # who is in which shard
    }


@pytest.mark.parametrize("share", ["user_share", "interaction_share"])
def test_a_share_that_depends_on_other_users_is_refused(share: str) -> None:
    section = {"data": {"privacy": {}}, "knowledge": {share: 0.5}}
    with pytest.raises(ValueError, match=rf"knowledge\.{share} below 1"):
        EnvironmentConfig.model_validate(section)
