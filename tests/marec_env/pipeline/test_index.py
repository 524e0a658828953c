import sys

import pytest
import torch
from torch.nn.functional import normalize

from marec_env.errors import ConfigError
from marec_env.pipeline.recall import CHANNELS
from marec_env.pipeline.topics import TopicRecall

ITEMS, CLUSTERS, SESSIONS = 4000, 40, 16
FAISS = {"index": "faiss", "index_above": 1000}


def open_request(make, items=ITEMS, **recall):
    """A request over items in clusters, with the hand-set profile built."""
    source = torch.Generator().manual_seed(0)
    knowledge = make.knowledge(items)
    for space in (knowledge.cf, knowledge.text):
        centres = torch.randn(CLUSTERS, space.shape[1], generator=source)
        noise = torch.randn(space.shape, generator=source)
        # Neighbouring numbers, of which the sessions' histories are made, share a cluster.
        near = centres[torch.arange(items) * CLUSTERS // items]
        space.copy_(normalize(near + 0.3 * noise, dim=1))
    pipeline = make.pipeline(SESSIONS, knowledge, candidates=50, recall=recall)
    request = pipeline.begin(make.keys(SESSIONS))
    pipeline.act(request, "profile_0", pipeline.default_actions()["profile_0"])
    return request


@pytest.mark.parametrize(
    ("channel", "space"),
    [
        ("cf", "cf"),
        ("text", "text"),
        ("affinity", "cf and topic"),
        ("diverse", "both and topic"),
    ],
)
def test_the_index_finds_nearly_all_that_the_exact_search_finds(make, channel, space):
    pytest.importorskip("faiss")
    plain, request = open_request(make), open_request(make, **FAISS)
    for one in (plain, request):
        one.memory.exposure[:, 1] = 0.5
    exact = CHANNELS.get(channel)(plain, 50)
    found = CHANNELS.get(channel)(request, 50)
    assert set(request.knowledge.indexes) == {space}
    assert not {"cf_scores", "text_scores"} & set(vars(request))  # of the whole catalog
    assert "items_of_topic" not in vars(request.knowledge)
    recall = [
        len(set(a) & set(b)) / 50 for a, b in zip(exact.tolist(), found.tolist(), strict=True)
    ]
    assert sum(recall) / SESSIONS >= 0.9


def test_seen_items_are_left_out_and_others_fetched_instead(make):
    pytest.importorskip("faiss")
    request = open_request(make, **FAISS)
    first = CHANNELS.get("cf")(request, 50)
    request.memory.update(first[:, :5], torch.zeros(SESSIONS, 5), None, None)
    again = CHANNELS.get("cf")(request, 50)
    assert torch.equal(again[:, :45], first[:, 5:])  # in the same order, best first
    for row, offered in enumerate(again.tolist()):
        assert min(offered) >= 0
        assert len(set(offered)) == 50
        assert not set(offered) & {3 * row, 3 * row + 1, 3 * row + 2}


def test_what_the_index_cannot_find_is_told_as_none(make):
    pytest.importorskip("faiss")
    offered = CHANNELS.get("cf")(open_request(make, **FAISS), 3000)
    assert bool((offered[:, -1] == -1).all())
    assert bool((offered[:, 0] >= 0).all())


def test_smaller_catalogs_are_searched_exactly(make):
    plain = CHANNELS.get("cf")(open_request(make), 50)
    request = open_request(make, index="faiss", index_above=ITEMS)
    assert torch.equal(CHANNELS.get("cf")(request, 50), plain)
    assert not request.knowledge.indexes


def test_without_the_package_the_error_says_what_to_install(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"pip install 'marec\[ann\]'"):
        open_request(make, **FAISS)


def test_scores_of_some_items_are_those_of_the_whole_catalog(make):
    pytest.importorskip("faiss")
    items = torch.randint(0, ITEMS, (SESSIONS, 7), generator=torch.Generator().manual_seed(1))
    exact, spared = open_request(make), open_request(make, **FAISS)
    for space in ("cf", "text"):
        found = spared.scores_of(space, items)
        assert torch.allclose(found, exact.scores_of(space, items), atol=1e-6)
    assert "cf_scores" in vars(exact)
    assert "cf_scores" not in vars(spared)


def test_topics_are_searched_in_the_index_too(make):
    pytest.importorskip("faiss")
    found = []
    for recall in ({}, FAISS):
        request = open_request(make, **recall)
        component = TopicRecall(request.config)
        component.initial_state(request.knowledge)
        found.append(component._channels[-2](request, 50))  # of topic 2
    assert bool((request.knowledge.topics[found[1]] == 2)[found[1] >= 0].all())
    pairs = zip(found[0].tolist(), found[1].tolist(), strict=True)
    assert sum(len(set(a) & set(b)) / 50 for a, b in pairs) / SESSIONS >= 0.9
    assert not {"cf_scores", "text_scores"} & set(vars(request))
