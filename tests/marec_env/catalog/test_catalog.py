"""Topics, names, ages and providers of a catalog."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from marec_env.catalog.build import CatalogConfig, build_catalog, kmeans, topic_names
from marec_env.data.log import InteractionLog, make_log
from marec_env.errors import DataError

DAY = 86_400
START = 1_000_000_000  # 2001-09-09


@pytest.fixture
def log() -> InteractionLog:
    texts = ("The Red Car", "The Blue Car", "A Quiet Boat", "The Long Boat")
    return make_log(
        user=torch.tensor([0, 0, 1, 1]),
        item=torch.tensor([0, 1, 0, 2]),
        rating=torch.tensor([5.0, 1.0, 4.0, 3.0]),
        time=torch.tensor([START, START + 5 * DAY, START + DAY, START + 10 * DAY]),
        user_ids=("a", "b"),
        item_ids=("p", "q", "r", "s"),
        titles=texts,
        texts=texts,
        genres=((), (), (), ()),
        year=torch.tensor([-1, 2001, 2010, -1]),
        like_threshold=4.0,
        group=torch.zeros(2, dtype=torch.int64),
        group_names=("all",),
        fingerprint="0",
        sources={},
    )


EMBEDDINGS = torch.tensor([[3.0, 0.1], [2.0, 0.0], [0.0, 1.0], [0.1, 2.0]])


def test_catalog_of_a_small_log(log: InteractionLog) -> None:
    catalog = build_catalog(log, EMBEDDINGS, CatalogConfig(num_topics=2))
    torch.testing.assert_close(catalog.text.norm(dim=1), torch.ones(4))
    assert catalog.topics[0] == catalog.topics[1] != catalog.topics[2] == catalog.topics[3]
    assert set(catalog.topic_names) == {"car / blue", "boat / long"}
    assert catalog.popularity.tolist() == [1.0, 0.5, 0.5, 0.0]
    # first seen; first of January 2001; first seen although dated later; never seen: new
    expected = [10.0, START / DAY + 10 - 31 * 365.25, 0.0, 0.0]
    torch.testing.assert_close(catalog.age, torch.tensor(expected))
    assert not catalog.providers.any()


def test_providers_of_the_source_come_before_assumed_ones(log: InteractionLog) -> None:
    config = CatalogConfig(num_topics=2, num_providers=3)
    assumed = build_catalog(log, EMBEDDINGS, config).providers
    assert int(assumed.max()) <= 2
    assert torch.equal(assumed, build_catalog(log, EMBEDDINGS, config).providers)
    named = dataclasses.replace(log, provider=torch.tensor([4, 4, 5, 6]))
    assert build_catalog(named, EMBEDDINGS, config).providers.tolist() == [4, 4, 5, 6]


def test_clusters_are_those_planted_whatever_the_seed() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 5 * torch.randn(6, 10, generator=generator)
    label = torch.arange(600) % 6
    points = centres[label] + torch.randn(600, 10, generator=generator)
    for seed in range(3):
        found, middle = kmeans(points, 6, seed=seed)
        pairs = torch.stack([label, found], 1).unique(dim=0)
        assert pairs.shape[0] == 6
        torch.testing.assert_close(middle[found[0]], points[label == 0].double().mean(0))


def test_clusters_are_numbered_by_size_and_repeatable() -> None:
    points = torch.randn(300, 4, generator=torch.Generator().manual_seed(1))
    label, centres = kmeans(points, 7)
    sizes = torch.bincount(label, minlength=7)
    assert bool((sizes[1:] <= sizes[:-1]).all())
    assert torch.equal(label, kmeans(points, 7)[0])
    nearest = torch.cdist(points.double(), centres).argmin(1)
    assert torch.equal(nearest, label)


def test_identical_points_and_bad_input() -> None:
    label, _ = kmeans(torch.ones(5, 2), 3)
    assert label.tolist() == [0] * 5
    with pytest.raises(DataError, match="6 clusters need at least as many items, there are 5"):
        kmeans(torch.ones(5, 2), 6)
    with pytest.raises(DataError, match="not finite"):
        kmeans(torch.full((5, 2), float("nan")), 2)


def test_topic_names_are_unique_even_for_equal_topics() -> None:
    names = topic_names(["red car"] * 6, [()] * 6, torch.tensor([0, 0, 1, 1, 2, 2]), 4)
    assert len(set(names)) == 4
    assert all(names)


def test_embeddings_that_do_not_fit_are_refused(log: InteractionLog) -> None:
    with pytest.raises(DataError, match=r"one row for each of 4 items, got shape \(3, 2\)"):
        build_catalog(log, EMBEDDINGS[:3], CatalogConfig(num_topics=2))


def test_a_large_catalog_is_clustered_by_a_sample_of_it(monkeypatch):
    """Points in seven places, in an order of period seven."""
    points = torch.eye(7)[torch.arange(700) % 7] * torch.arange(2, 9)
    whole, centres = kmeans(points, 7)
    monkeypatch.setattr("marec_env.catalog.build._MOST_POINTS", 128)
    label, found = kmeans(points, 7)
    assert torch.equal(label, label[:7].repeat(100))
    assert sorted(label[:7].tolist()) == list(range(7))
    assert torch.equal(found[label], centres[whole])
