"""The share of the log that the recommender sees, and what it learns from it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from marec_env.data.log import InteractionLog
from marec_env.data.recommender_log import (
    KnowledgeConfig,
    directions,
    item_neighbours,
    learn,
    popularity,
    select_log,
)


def test_whole_log_by_default(blocks: InteractionLog) -> None:
    assert torch.equal(select_log(blocks, KnowledgeConfig()).item, blocks.item)


def test_shares_are_kept_and_nested(blocks: InteractionLog) -> None:
    small = select_log(blocks, KnowledgeConfig(user_share=0.25))
    large = select_log(blocks, KnowledgeConfig(user_share=0.5))
    assert small.user.unique().numel() == 20
    assert set(small.user.tolist()) < set(large.user.tolist())
    part = select_log(blocks, KnowledgeConfig(interaction_share=0.5))
    assert part.num_interactions == pytest.approx(0.5 * blocks.num_interactions, rel=0.1)


def test_popularity_bias_favours_popular_items(ecommerce: InteractionLog) -> None:
    even = select_log(ecommerce, KnowledgeConfig(interaction_share=0.3))
    biased = select_log(ecommerce, KnowledgeConfig(interaction_share=0.3, popularity_exponent=2.0))
    count = torch.bincount(ecommerce.item, minlength=ecommerce.num_items).double()
    means = [float(count[log.item].mean()) for log in (even, biased)]
    assert means[1] > 1.3 * means[0]
    assert biased.num_interactions == pytest.approx(even.num_interactions, rel=0.1)


def test_neighbours_equal_dense_cosines(blocks: InteractionLog) -> None:
    dense = torch.zeros(60, 80)
    dense[blocks.item, blocks.user] = 1.0
    unit = torch.nn.functional.normalize(dense, dim=1)
    cosine = (unit @ unit.T).fill_diagonal_(-1.0)
    neighbours, similarity = item_neighbours(blocks, 5)
    torch.testing.assert_close(similarity, cosine.topk(5).values)
    torch.testing.assert_close(torch.gather(cosine, 1, neighbours), similarity)


def test_items_without_company_have_no_neighbours(
    make_small: Callable[..., InteractionLog],
) -> None:
    log = make_small([0, 0, 1], [0, 1, 2], [5, 5, 5], [1, 2, 3], items=4)
    neighbours, similarity = item_neighbours(log, 6)
    assert neighbours.tolist() == [[1] + [-1] * 5, [0] + [-1] * 5, [-1] * 6, [-1] * 6]
    assert float(similarity[2:].abs().max()) == 0.0
    assert popularity(log).tolist() == [1, 1, 1, 0]


def test_unmet_users_are_unknown(blocks: InteractionLog) -> None:
    config = KnowledgeConfig(user_share=0.5, dim=4)
    learned = learn(select_log(blocks, config), config)
    assert int(learned.known_users.sum()) == 40
    assert not learned.factors.user[~learned.known_users].any()
    assert learned.popularity.max() == 1.0


def test_directions_are_unit_vectors_about_the_mean_and_zero_without_interactions():
    factors = torch.tensor([[3.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    assert directions(factors).tolist() == [[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]


def test_neighbours_of_a_large_catalog_are_found_by_way_of_users(
    blocks: InteractionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = item_neighbours(blocks, 70)[1]  # more than there are: the last are none
    monkeypatch.setattr("marec_env.data.recommender_log._DENSE_ITEMS", 0)
    monkeypatch.setattr("marec_env.data.recommender_log._ITEM_BLOCK", 7)
    neighbours, similarity = item_neighbours(blocks, 70)
    torch.testing.assert_close(similarity, dense)
    ties = (similarity[:, 1:] == similarity[:, :-1]) & (neighbours[:, 1:] >= 0)
    assert bool(ties.any())
    assert bool((neighbours[:, 1:] > neighbours[:, :-1])[ties].all())  # the lower item first
    assert not any(own in row for own, row in enumerate(neighbours.tolist()))
    first = item_neighbours(blocks, 3)
    assert torch.equal(first[0], neighbours[:, :3])
    assert torch.equal(first[1], similarity[:, :3])


def test_whoever_consumed_thousands_of_items_makes_no_neighbours_in_a_large_catalog(
    make_small: Callable[..., InteractionLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marec_env.data.recommender_log._DENSE_ITEMS", 0)
    many = list(range(2001))
    log = make_small([0] * 2001 + [1, 1], [*many, 0, 5], [5] * 2003, [0] * 2003)
    neighbours, similarity = item_neighbours(log, 2)
    assert neighbours[0].tolist() == [5, -1]
    assert float(similarity[0, 0]) == pytest.approx(0.5)  # one of two users each
    assert neighbours[1].tolist() == [-1, -1]
