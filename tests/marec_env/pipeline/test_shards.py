"""Vectors in parts: the answers are those of the whole."""

import pytest
import torch

from marec_env.errors import ConfigError
from marec_env.pipeline.index import SPACES
from marec_env.pipeline.recall import CHANNELS
from marec_env.pipeline.shards import ItemShards, Shard, divided

ITEMS, SESSIONS = 101, 5


class Here:
    """A host that keeps its parts in this process."""

    def __init__(self, parts, approximate):
        self.parts = [Shard(part, approximate) for part in parts]

    def ask(self, method, asked):
        return [
            None if given is None else getattr(part, method)(*given)
            for part, given in zip(self.parts, asked, strict=True)
        ]


def in_parts(knowledge, count=3, approximate=False):
    return divided(knowledge, count, approximate, Here)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("length", [1, 20, 60, ITEMS])
def test_the_best_of_all_parts_are_the_best_of_the_whole(make, space, length):
    whole = make.knowledge(ITEMS)
    tables = torch.cat([getattr(whole, name) for name in SPACES[space]], dim=1)
    query = torch.randn(SESSIONS, tables.shape[1], generator=torch.Generator().manual_seed(3))
    expected = (query @ tables.T).argsort(dim=1, descending=True)[:, :length]
    assert torch.equal(in_parts(whole).shards.search(space, query, length), expected)


def test_of_equals_the_first_item_comes_first_and_what_was_not_found_last():
    class Told:
        def ask(self, method, asked):
            return [
                (torch.tensor([[2.0, 1.0]]).numpy(), torch.tensor([[1, 0]]).numpy()),
                (torch.tensor([[2.0, 3.0]]).numpy(), torch.tensor([[0, -1]]).numpy()),
            ]

    found = ItemShards(Told(), (0, 10, 20), {}).search("cf", torch.zeros(1, 2), 4)
    assert found.tolist() == [[1, 10, 0, -1]]


@pytest.mark.parametrize("table", ["text", "cf", "topic_indicator"])
def test_rows_come_from_the_part_that_holds_them(make, table):
    whole = make.knowledge(ITEMS)
    parts = in_parts(whole)
    items = torch.tensor([[0, 100, 33], [33, 66, 34], [67, 1, 2]])
    assert torch.equal(parts.rows(table, items), getattr(whole, table)[items])
    assert torch.equal(parts.rows(table, items[:1, :1]), whole.rows(table, items[:1, :1]))
    assert getattr(parts, table).is_meta and getattr(parts, table).shape[0] == ITEMS


def test_a_pipeline_on_parts_does_as_on_the_whole(make):
    whole, slates = make.knowledge(), []
    for knowledge in (whole, in_parts(whole)):
        pipeline = make.pipeline(knowledge=knowledge)
        assert torch.equal(knowledge.centre_cf, whole.centre_cf)
        for step in range(4):
            request = pipeline.begin(make.keys())
            for agent, action in pipeline.default_actions().items():
                pipeline.act(request, agent, action)
            slate = pipeline.finish(request)
            slates.append(slate)
            pipeline.learn(request, (slate % 3 == step % 3).to(torch.float32))
        slates.append(pipeline.memory.taste_cf)
        slates.append(pipeline.observe("recall_0"))
    for one, other in zip(slates[:6], slates[6:], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_parts_are_searched_by_an_index_each(make):
    pytest.importorskip("faiss")
    whole = make.knowledge(2000)
    knowledge = in_parts(whole, 2, approximate=True)
    request = make.pipeline(knowledge=knowledge, candidates=50).begin(make.keys())
    offered = CHANNELS.get("cf")(request, 50)
    parts = knowledge.shards.host.parts
    assert [set(part._indexes) for part in parts] == [{"cf"}, {"cf"}]
    scores = (request.profile_cf.unsqueeze(1) @ whole.rows("cf", offered).transpose(1, 2))[:, 0]
    assert bool((offered >= 0).all()) and bool((offered >= 1000).any())
    assert bool((scores.diff(dim=1) <= 1e-6).all())  # best first, whichever part it is from


def test_who_needs_all_vectors_is_told_to_keep_them_whole(make):
    knowledge = make.knowledge()
    assert knowledge.whole("cf", "x") is knowledge.cf
    with pytest.raises(ConfigError, match=r"the reader .* set .*recall.shards=1"):
        in_parts(knowledge).whole("cf", "the reader")


def test_more_parts_than_items_are_refused(make):
    with pytest.raises(ConfigError, match="shards is 61, but the catalog has 60 items"):
        in_parts(make.knowledge(), 61)
