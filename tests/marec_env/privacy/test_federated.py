"""Factors over shards of users: equal to the fit on all where they should be, near it elsewhere."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from marec_env.data.config import DataConfig
from marec_env.data.factors import Factors, fit_factors
from marec_env.data.log import InteractionLog, load_log
from marec_env.data.recommender_log import KnowledgeConfig, directions
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import DataError
from marec_env.privacy import federated
from marec_env.privacy.federated import FederatedConfig, FederatedReport, fit_federated, shards_of
from marec_env.privacy.mechanisms import gaussian_epsilon
from marec_env.world import build_world
from tests.worlds import small_environment


@pytest.fixture(scope="module")
def log() -> InteractionLog:
    synthetic = {"num_users": 200, "num_items": 80}
    return load_log(
        DataConfig.model_validate({"source": "synthetic/streaming", "synthetic": synthetic})
    )


def fitted(log: InteractionLog, **settings: object) -> tuple[Factors, FederatedReport]:
    config = FederatedConfig.model_validate({"rounds": 6, **settings})
    return fit_federated(log, 6, config, ridge=10.0, seed=3)


def central(log: InteractionLog, sweeps: int = 6) -> torch.Tensor:
    return fit_factors(log, 6, model="implicit", sweeps=sweeps, ridge=10.0, seed=3).item


def agreement(item: torch.Tensor, other: torch.Tensor) -> float:
    """Return how alike items' likenesses are: the correlation of cosines of pairs."""
    one, two = directions(item), directions(other)
    pairs = torch.triu_indices(len(item), len(item), 1)
    both = torch.stack([(one @ one.T)[pairs[0], pairs[1]], (two @ two.T)[pairs[0], pairs[1]]])
    return float(torch.corrcoef(both)[0, 1])


def test_one_shard_is_training_on_all(log: InteractionLog) -> None:
    factors, report = fitted(log, shards=1)
    assert torch.allclose(factors.item, central(log), atol=1e-6)
    twice, _ = fitted(log, shards=1, rounds=3, local_sweeps=2)
    assert torch.allclose(twice.item, central(log), atol=1e-6)
    size = 80 * 6 * 4
    assert (report.bytes_down, report.bytes_up) == (6 * size, 6 * (size + 80 * 4))
    assert not bool(factors.user.any())  # users' own vectors never leave their shard


def test_twenty_shards_are_near_to_training_on_all(log: InteractionLog) -> None:
    whole = central(log)
    even = agreement(fitted(log, shards=20)[0].item, whole)
    assert even > 0.8
    assert agreement(fitted(log, shards=2)[0].item, whole) > even
    assert agreement(whole[torch.arange(79, -1, -1)], whole) < 0.2  # it can tell


def test_a_client_that_is_lost_loses_nothing(log: InteractionLog) -> None:
    """The others' answers are used, and its data comes in again in later rounds."""
    factors, report = fitted(log, shards=4, rounds=1, dropout=0.5)
    assert (report.answers, report.lost) == (2, 2)
    shard = shards_of(log, FederatedConfig(shards=4), 3)
    start = fitted(log, shards=4, rounds=1, dropout=1.0)[0].item
    clients = [
        federated._Client(log.select(shard[log.user] == one), 10.0, 4.0, 0.25) for one in range(4)
    ]
    answers = [one.train(start.double(), 1, 0.0) for one in clients]
    same = []
    for pair in combinations(range(4), 2):
        mean = federated._mean(
            start.double(), [answers[one] for one in pair], [clients[one].count for one in pair]
        )
        same.append(torch.allclose(mean.float(), factors.item, atol=1e-5))
    assert sum(same) == 1  # the mean of the two that answered, and of nobody else
    many, told = fitted(log, shards=4, rounds=30, dropout=0.5)
    assert told.lost > 30 and told.bytes_up < told.bytes_down
    never, _ = fitted(log, shards=4, rounds=30)
    assert agreement(many.item, never.item) > 0.9
    # Were all lost, what there was would stay.
    gone, _ = fitted(log, shards=4, rounds=1, dropout=1.0)
    stays, _ = fitted(log, shards=1, rounds=7, dropout=1.0)
    assert torch.equal(gone.item, stays.item)


def test_clients_are_drawn(log: InteractionLog) -> None:
    _, report = fitted(log, shards=10, rounds=40, client_share=0.3)
    assert 70 < report.answers < 170
    assert report.bytes_down == report.answers * 80 * 6 * 4


def test_a_proximal_client_stays_near_what_it_was_sent(log: InteractionLog) -> None:
    start, _ = fitted(log, shards=5, rounds=1, dropout=1.0)
    far = [
        float((fitted(log, shards=5, rounds=1, proximal=weight)[0].item - start.item).norm())
        for weight in (0.0, 50.0, 1e7)
    ]
    assert far[0] > far[1] > far[2] and far[2] < 1e-3 * far[0]


def test_shards_are_even_or_differ(log: InteractionLog) -> None:
    count = torch.bincount(log.item, minlength=log.num_items).double()
    spread = {}
    for split in ("even", "sorted"):
        shard = shards_of(log, FederatedConfig(shards=8, split=split), 3)
        assert torch.bincount(shard).tolist() == [25] * 8
        means = [float(count[log.item[shard[log.user] == one]].mean()) for one in range(8)]
        spread[split] = max(means) - min(means)
    assert spread["sorted"] > 3 * spread["even"]
    with pytest.raises(DataError, match=r"200 users .* for 201 shards"):
        fitted(log, shards=201)


def test_noise_is_counted_and_answers_are_short(log: InteractionLog) -> None:
    quiet, report = fitted(log, shards=20, rounds=2, noise=1e-9, clip=0.5)
    start, _ = fitted(log, shards=20, rounds=1, dropout=1.0)
    assert float((quiet.item - start.item).norm()) <= 2 * 0.5 * (1 + 1e-5)
    assert report.epsilon is not None and report.epsilon > 1e6
    loud, private = fitted(log, shards=20, rounds=2, noise=4.0, clip=0.5)
    exact = gaussian_epsilon(2**0.5 / 4.0, 1e-5)
    assert private.epsilon is not None and exact < private.epsilon < 1.2 * exact
    assert "ε = 1.478 of a shard" in private.line
    # Of each number: √2 rounds of noise 4 x .5, over 20 clients.
    spread = float((loud.item - quiet.item).std())
    assert spread == pytest.approx(2**0.5 * 4.0 * 0.5 / 20, rel=0.3)
    sampled, half = fitted(log, shards=20, rounds=2, noise=4.0, client_share=0.5)
    assert half.epsilon is not None and half.epsilon < private.epsilon
    assert sampled.item.isfinite().all()


def test_a_configuration_learns_over_shards_and_says_so() -> None:
    over = {"shards": 3, "rounds": 2}
    section = small_environment(60, 80, knowledge={"dim": 4, "federated": over})
    world = build_world(EnvironmentConfig.model_validate(section))
    assert world.learned.federated is not None and world.learned.federated.answers == 6
    assert "6 answers, 0 lost" in world.log.warnings[-1]
    both = {**section, "data": {**section["data"], "privacy": {}}}
    with pytest.raises(ValueError, match="take one of them"):
        EnvironmentConfig.model_validate(both)
    assert KnowledgeConfig().federated is None
