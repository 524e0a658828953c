import re

import pytest
import torch

from marec_env.errors import ConfigError, PluginError
from marec_env.pipeline.recall import CHANNELS

SEEN = [{0, 1, 2}, {3, 4, 5}, {6, 7, 8}]  # histories of the sessions of conftest


def offers(name, request, length=10):
    return CHANNELS.get(name)(request, length)


def repeating(request, length):
    """A user's own channel that is careless: it offers each item twice, seen ones too."""
    return (torch.arange(length) // 2).expand(request.num_sessions, -1)


@pytest.mark.parametrize("space", ["cf", "text"])
def test_nearest_items_in_each_space_without_seen_ones(request_, space):
    profile = getattr(request_, f"profile_{space}")
    items = getattr(request_.knowledge, space)
    for row, offered in enumerate(offers(space, request_).tolist()):
        score = items @ profile[row]
        order = [i for i in score.argsort(descending=True).tolist() if i not in SEEN[row]]
        assert offered == order[:10]


def test_diverse_leaves_out_exposed_topics_when_the_penalty_is_large(make):
    pipeline = make.pipeline(recall={"topic_penalty": 100.0})
    request = pipeline.begin(make.keys())
    request.need("slate")
    pipeline.memory.exposure[:, 1] = 0.5
    for row, offered in enumerate(offers("diverse", request).tolist()):
        topics = request.knowledge.topics[torch.tensor(offered)]
        assert 1 not in topics.tolist()
        score = request.knowledge.cf @ request.profile_cf[row]
        score = score + request.knowledge.text @ request.profile_text[row]
        allowed = [
            i
            for i in score.argsort(descending=True).tolist()
            if i not in SEEN[row] and request.knowledge.topics[i] != 1
        ]
        assert offered == allowed[:10]


def test_diverse_without_exposure_is_the_sum_of_both_spaces(request_):
    score = request_.knowledge.cf @ request_.profile_cf[0]
    score = score + request_.knowledge.text @ request_.profile_text[0]
    order = [i for i in score.argsort(descending=True).tolist() if i not in SEEN[0]]
    assert offers("diverse", request_)[0].tolist() == order[:10]


def test_diverse_trades_the_mean_of_both_spaces_against_exposure(make):
    pipeline = make.pipeline(recall={"topic_penalty": 0.7})
    request = pipeline.begin(make.keys())
    request.need("slate")
    pipeline.memory.exposure[:] = torch.tensor([0.5, 0.0, 0.2, 0.3])
    knowledge = request.knowledge
    score = knowledge.cf @ request.profile_cf[1] + knowledge.text @ request.profile_text[1]
    score = 0.5 * score - 0.7 * request.memory.exposure[1][knowledge.topics]
    order = [i for i in score.argsort(descending=True).tolist() if i not in SEEN[1]]
    assert offers("diverse", request)[1].tolist() == order[:10]


def test_affinity_adds_the_log_ratio_of_topic_shares_to_the_collaborative_score(make):
    pipeline = make.pipeline(recall={"affinity_weight": 0.5})
    request = pipeline.begin(make.keys())
    request.need("profile_cf")
    pipeline.memory.interest[:] = torch.tensor([0.6, 0.2, 0.2, 0.0])
    knowledge = request.knowledge
    usual = knowledge.topic_share
    ratio = torch.log((pipeline.memory.interest[1] + 0.2 * usual) / 1.2 / usual)
    score = knowledge.cf @ request.profile_cf[1] + 0.5 * ratio[knowledge.topics]
    order = [i for i in score.argsort(descending=True).tolist() if i not in SEEN[1]]
    assert offers("affinity", request)[1].tolist() == order[:10]


def test_affinity_of_a_user_without_a_history_is_zero(request_):
    request_.memory.interest[:] = 0.0
    assert torch.allclose(request_.affinity, torch.zeros_like(request_.affinity), atol=1e-6)
    assert offers("affinity", request_).tolist() == offers("cf", request_).tolist()


def test_item_to_item_takes_first_neighbours_of_the_latest_likes_first(request_):
    neighbours = request_.knowledge.neighbours
    assert request_.memory.recent[0, :3].tolist() == [1, 0, -1]  # latest like first
    expected = []
    for rank in range(neighbours.shape[1]):
        expected += [int(neighbours[1, rank]), int(neighbours[0, rank])]
    kept = list(dict.fromkeys(expected))
    offered = [item for item in offers("item_to_item", request_)[0].tolist() if item >= 0]
    assert offered == kept


def test_popular_is_the_catalog_in_order_for_everyone(request_):
    popularity = request_.knowledge.popularity
    offered = offers("popular", request_)
    assert offered[0].tolist() == popularity.argsort(descending=True)[:30].tolist()
    assert torch.equal(offered[0], offered[2])


def test_fresh_walks_through_the_newest_share_without_repeats(request_):
    newest = set(request_.knowledge.age.argsort()[:15].tolist())  # a quarter of 60
    offered = offers("fresh", request_, 10)
    for row in offered.tolist():
        assert set(row) <= newest
        assert len(set(row)) == len(row)
    assert offered[0].tolist() != offered[1].tolist()
    request_.step = request_.step + 1
    assert offers("fresh", request_, 10).tolist() != offered.tolist()


def test_a_channel_of_ones_own_may_be_careless(make):
    pipeline = make.pipeline(recall={"channels": ("cf", f"{__name__}:repeating")})
    request = pipeline.begin(make.keys())
    request.makers["candidates"].act(request, torch.tensor([[0, 1]] * 3))
    for row, seen in enumerate(SEEN):
        kept = request.candidates[row].tolist()
        assert len(set(kept)) == 20
        assert not seen & set(kept)
        own = request.candidates[row][request.candidate_channel[row] == 1].tolist()
        assert own == [item for item in range(10) if item not in seen]


def test_candidates_of_all_channels_are_unseen_and_differ(request_):
    request_.makers["candidates"].act(request_, torch.ones(3, 7, dtype=torch.int64))
    assert request_.quotas.sum(1).tolist() == [20] * 3
    for row, seen in enumerate(SEEN):
        kept = request_.candidates[row].tolist()
        assert len(set(kept)) == 20
        assert not seen & set(kept)


def outside(request, length):
    """A channel that offers items that the catalog does not hold."""
    return torch.full((request.num_sessions, length), request.knowledge.num_items)


def of_one_session(request, length):
    """A channel that answers one session only."""
    return torch.arange(length).unsqueeze(0)


@pytest.mark.parametrize(
    ("channel", "message"),
    [(outside, "offered items outside 0 ... 59; use -1"), (of_one_session, "[1, 20]; needed")],
)
def test_a_channel_of_ones_own_that_offers_nonsense_is_named(make, channel, message):
    pipeline = make.pipeline(recall={"channels": (f"{__name__}:{channel.__name__}",)})
    with pytest.raises(ConfigError, match=re.escape(message)):
        pipeline.begin(make.keys()).need("candidates")


def refusing(request, length):
    """A channel that must not be asked."""
    raise AssertionError("nobody wanted anything of it")


def test_a_channel_is_asked_only_where_somebody_wants_its_items(make):
    pipeline = make.pipeline(recall={"channels": ("cf", f"{__name__}:refusing")})
    request = pipeline.begin(make.keys())
    request.makers["candidates"].act(request, torch.tensor([[1, 0]] * 3))
    assert request.candidate_channel.unique().tolist() == [0]
    with pytest.raises(PluginError, match=r"recall channel '.*:refusing' failed.*nobody wanted"):
        request.makers["candidates"].act(request, torch.tensor([[1, 0], [1, 0], [1, 1]]))
