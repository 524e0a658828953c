import pytest
import torch

from marec_env.pipeline.ranking import BLOCKS, standardised

CANDIDATES = torch.tensor([[10, 20, 30, 41], [11, 12, 13, 14], [59, 9, 22, 33]])


def test_cf_and_text_are_profile_times_item(request_):
    for space in ("cf", "text"):
        items, profile = getattr(request_.knowledge, space), getattr(request_, f"profile_{space}")
        expected = (items[CANDIDATES] * profile.unsqueeze(1)).sum(-1)
        assert torch.allclose(BLOCKS.get(space)(request_, CANDIDATES), expected, atol=1e-6)


def test_popularity_and_freshness_read_the_catalog(request_):
    knowledge = request_.knowledge
    popularity = BLOCKS.get("popularity")(request_, CANDIDATES)
    assert torch.equal(popularity, knowledge.popularity[CANDIDATES])
    rank = knowledge.age.argsort().argsort()[CANDIDATES].float()
    expected = 1.0 - rank / (knowledge.num_items - 1)
    freshness = BLOCKS.get("freshness")(request_, CANDIDATES)
    assert torch.allclose(freshness, expected, atol=1e-6)


def test_affinity_is_that_of_the_items_topic(request_):
    # Topics are item mod 4: 10, 20, 30, 41 lie in 2, 0, 2, 1.
    found = BLOCKS.get("affinity")(request_, CANDIDATES)
    assert torch.equal(found[0], request_.affinity[0][torch.tensor([2, 0, 2, 1])])
    # The first user liked items 0 and 1: topics 0 and 1 are favoured, the others are not.
    assert bool((request_.affinity[0, :2] > 0).all()) and bool((request_.affinity[0, 2:] < 0).all())


def test_exposure_prefers_topics_shown_little(request_):
    request_.memory.exposure[:] = torch.tensor([0.4, 0.1, 0.0, 0.2])
    # Topics are item mod 4: 10, 20, 30, 41 lie in 2, 0, 2, 1.
    found = BLOCKS.get("exposure")(request_, CANDIDATES)[0]
    assert found.tolist() == pytest.approx([0.0, -0.4, 0.0, -0.1])


def test_standardised_has_zero_mean_and_unit_spread_or_says_nothing():
    score = torch.tensor([[1.0, 2.0, 3.0, 6.0], [5.0, 5.0, 5.0, 5.0]])
    found = standardised(score)
    assert found[0].mean().item() == pytest.approx(0.0, abs=1e-6)
    assert found[0].square().mean().item() == pytest.approx(1.0, abs=1e-5)
    assert found[0].argsort().tolist() == [0, 1, 2, 3]
    assert found[1].tolist() == [0.0] * 4


def test_blocks_that_are_off_are_zero_and_cost_nothing(request_):
    enabled = torch.tensor([[1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]])
    request_.makers["blocks"].act(request_, enabled)
    assert request_.compute_cost.tolist() == pytest.approx([0.02, 0.08, 0.0])
    assert bool((request_.blocks[0, :, 1:] == 0).all())
    assert bool((request_.blocks[2] == 0).all())
    assert bool((request_.blocks[0, :, 0] != 0).any())
    expected = standardised(BLOCKS.get("text")(request_, request_.candidates))
    assert torch.allclose(request_.blocks[1, :, 1], expected[1])
