"""Attacks on cases with known answers: what memorises is caught, what knows nothing is not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from agents.studies.privacy.attributes import infer
from agents.studies.privacy.audit import audit, epsilon_proved, largest_proof
from agents.studies.privacy.membership import (
    ALL,
    Published,
    halves,
    knowledge_of,
    membership,
    rows_of,
)
from agents.studies.privacy.quality import auc, proportion, true_positives
from marec_env.data.config import DataConfig
from marec_env.data.log import InteractionLog, load_log
from marec_env.data.recommender_log import KnowledgeConfig
from marec_env.privacy.config import ContributionConfig, PrivacyConfig
from marec_env.privacy.mechanisms import keyed_normal
from marec_env.privacy.uniqueness import singled_out


@pytest.fixture(scope="module")
def log() -> InteractionLog:
    synthetic = {"num_users": 80, "num_items": 150}
    return load_log(
        DataConfig.model_validate({"source": "synthetic/streaming", "synthetic": synthetic})
    )


def nothing_but(vectors: torch.Tensor) -> Published:
    size = len(vectors)
    return Published(vectors, torch.full((size, 2), -1), torch.zeros(size))


def test_a_model_that_memorises_is_caught(log: InteractionLog) -> None:
    def memorise(part: InteractionLog) -> Published:
        return nothing_but(rows_of(part).T)  # an item's vector: who consumed it

    found = membership(log, memorise, models=4)
    for attack in ("threshold", "likelihood ratio"):
        caught = found[f"reconstruction from vectors, {attack}"]
        assert caught["auc"].value > 0.97 and caught["tpr"].value > 0.9
    assert found["popularity, threshold"]["auc"].value == 0.5  # of a constant


def test_vectors_of_chance_tell_nothing(log: InteractionLog) -> None:
    def chance(part: InteractionLog) -> Published:
        vectors = keyed_normal(part.fingerprint.encode(), "test", 150 * 12).view(150, 12)
        return nothing_but(vectors.float())

    found = membership(log, chance, models=8)
    for name in ("reconstruction from vectors, threshold", ALL):
        assert found[name]["auc"].low < 0.5 < found[name]["auc"].high
        assert found[name]["tpr"].low < 0.05


def test_noise_hides_members_and_its_absence_does_not(log: InteractionLog) -> None:
    bounds = ContributionConfig(events=64, items=150)

    def attacked(epsilon: float | None) -> float:
        privacy = PrivacyConfig(epsilon=epsilon, contribution=bounds)
        config = KnowledgeConfig(dim=30, neighbours=20)
        found = membership(log, lambda part: knowledge_of(part, config, privacy), models=6)
        return found["released co-occurrence, likelihood ratio"]["auc"].value

    assert attacked(None) > 0.8
    assert abs(attacked(0.1) - 0.5) < 0.1


def test_every_user_is_in_as_many_models_as_not() -> None:
    member = halves(31, 6, seed=4)
    assert torch.equal(member.sum(0), torch.full((31,), 3))
    assert not torch.equal(member[0], member[2])
    assert not torch.equal(member, halves(31, 6, seed=5))


def test_measures_of_an_attack() -> None:
    inside, outside = np.arange(100) + 150.0, np.arange(200.0)
    # 50 members above all others; of the rest, the k-th above 150 + k of 200.
    assert auc(inside, outside).value == pytest.approx(1 - 0.5 * 0.01 * 0.25 * 50, abs=2e-3)
    # Two of 200 may be above: 197 and on, as the threshold is 197.
    assert true_positives(inside, outside).value == 0.52
    found = proportion(0, 20)
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(
        1 - 0.025 ** (1 / 20)
    )  # Clopper and Pearson's, in closed form


def test_an_audit_never_proves_more_than_is_stated_and_finds_noise_that_is_missing() -> None:
    stated = 3.0
    proved = audit(PrivacyConfig(epsilon=stated, delta=1e-3), 1000)
    assert 0.25 * stated < proved <= stated
    found = audit(PrivacyConfig(epsilon=None, delta=1e-3), 400)
    assert 1.2 * stated < found == pytest.approx(largest_proof(400), abs=0.01)


def test_the_proof_of_an_epsilon_is_that_of_its_rates() -> None:
    generator = np.random.default_rng(0)
    inside, outside = generator.normal(2.0, 1, 40_000), generator.normal(0.0, 1, 40_000)
    # The best threshold of N(2, 1) against N(0, 1) has no end in theory: bounds hold it back.
    proved = epsilon_proved(inside, outside, 1e-5)
    assert 2.0 < proved < math.log(norm.cdf(-1.0) / norm.cdf(-3.0)) + 1.5
    assert epsilon_proved(outside[:20_000], outside[20_000:], 1e-5) < 0.2


def test_attributes_are_inferred_where_they_show_and_not_where_they_do_not() -> None:
    group = torch.arange(300) % 3
    noise = keyed_normal(b"test", "noise", 300 * 5).view(300, 5).float()
    told = noise.clone()
    told[:, 2] += 3.0 * (group == 1)
    shown, hidden = infer(told, group), infer(noise, group)
    assert shown["auc"].low > 0.6 and shown["accuracy"].low > shown["base"].high
    assert hidden["auc"].low < 0.5 < hidden["auc"].high
    assert hidden["accuracy"].low < 1 / 3 + 0.05
    assert shown["base"].value == pytest.approx(1 / 3)


def test_how_many_events_single_users_out() -> None:
    log = load_log(DataConfig(source="synthetic/streaming"))
    part = replace(
        log, impressions=None, behaviours={},
        user_ids=("a", "b", "c", "d"), item_ids=tuple("uvwxyz"),
        user=torch.tensor([0, 0, 1, 1, 2, 2, 3]), item=torch.tensor([0, 1, 0, 1, 0, 5, 5]),
        rating=torch.ones(7), time=torch.tensor([0, 0, 0, 40, 0, 0, 90]) * 86_400,
    )  # fmt: skip
    assert singled_out(part, 1).tolist() == [False, False, False, False]  # all items are shared
    # a and b have the same two; c alone has the first and the last; d has one event only.
    assert singled_out(part, 2).tolist() == [False, False, True]
    assert singled_out(part, 2, days=30).tolist() == [True, True, True]
    assert singled_out(part, 3).tolist() == []
