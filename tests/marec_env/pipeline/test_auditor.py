import math

import pytest
import torch

from marec_env.pipeline import ranking
from marec_env.pipeline.ranking import provider_share, unsuitable

STRICT, AT_LIMIT, LENIENT = 1.0, 0.0, -1.0
TEAM = ("recall", "auditor", "ranking")


@pytest.fixture
def audited(make):
    def build(**audit):
        knowledge = make.knowledge()
        knowledge.attributes["risk"] = (torch.arange(60) % 7 + 1).float()
        pipeline = make.pipeline(knowledge=knowledge, components=TEAM, audit=audit)
        pipeline.memory.limits[:] = torch.tensor([[3.0], [torch.inf], [7.0]])
        return pipeline

    return build


def show(pipeline, make, topic=AT_LIMIT, provider=AT_LIMIT):
    request = pipeline.begin(make.keys())
    pipeline.act(request, "auditor_0", torch.tensor([[topic, provider]] * 3))
    pipeline.finish(request)
    return request


def test_unsuitable_items_exceed_the_users_limit(audited, make):
    pipeline = audited()
    request = pipeline.begin(make.keys())
    found = unsuitable(request, torch.arange(7).expand(3, -1))
    assert found.tolist() == [[False] * 3 + [True] * 4, [False] * 7, [False] * 7]


@pytest.mark.parametrize("topic", [STRICT, LENIENT])
def test_unsuitable_items_are_never_shown_while_there_are_others(audited, make, topic):
    request = show(audited(), make, topic=topic)
    risk = request.knowledge.attributes["risk"][request.slate]
    assert bool((risk[0] <= 3).all())
    assert bool((risk[1] > 3).any())


def test_without_the_attribute_nothing_is_unsuitable(make):
    pipeline = make.pipeline(components=TEAM)
    request = pipeline.begin(make.keys())
    assert not bool(unsuitable(request, torch.arange(60).expand(3, -1)).any())


@pytest.mark.parametrize(
    ("strictness", "vetoed"), [(LENIENT, []), (AT_LIMIT, [1]), (STRICT, [1, 2])]
)
def test_exposed_topics_are_vetoed_by_strictness(audited, make, strictness, vetoed):
    pipeline = audited(max_topic_share=0.3)
    pipeline.memory.exposure[:] = torch.tensor([0.0, 0.5, 0.2, 0.0])
    request = show(pipeline, make, topic=strictness)
    topics = request.knowledge.topics
    vetoes = request.veto[1] > 0
    over = set(topics[request.candidates[1]][vetoes].tolist())
    assert sorted(over) == vetoed
    for row in (1, 2):
        allowed = int((request.veto[row] == 0).sum())
        if allowed >= 5:
            assert not set(topics[request.slate[row]].tolist()) & set(vetoed)


def test_no_weight_and_no_luck_outbids_a_veto(make, monkeypatch):
    monkeypatch.setattr(ranking, "_MAX_WEIGHT", 1e4)
    monkeypatch.setattr(ranking, "_TEMPERATURES", math.log(1e3 / 0.01))
    pipeline = make.pipeline(components=TEAM, audit={"max_topic_share": 0.3})
    pipeline.memory.exposure[:] = torch.tensor([0.0, 0.5, 0.0, 0.0])
    for temperature in (-1.0, 1.0):
        request = pipeline.begin(make.keys())
        pipeline.act(request, "auditor_0", torch.zeros(3, 2))
        action = torch.ones(3, 8)
        action[:, -1] = temperature
        pipeline.act(request, "ranking_0", action)
        pipeline.finish(request)
        enough = (request.veto == 0).sum(1) >= 5
        shown = request.veto.gather(1, request.slate_slot)
        assert bool(enough.any())
        assert bool((request.veto > 0).any())
        assert not bool(shown[enough].any())
        assert bool(request.log_propensity.isfinite().all())


def test_overexposed_items_fill_up_before_unsuitable_ones(audited, make):
    pipeline = audited(max_topic_share=0.3)
    pipeline.memory.exposure[:] = 1.0  # every topic is over its limit
    request = show(pipeline, make)
    assert bool((request.veto > 0).all())
    assert bool((request.knowledge.attributes["risk"][request.slate[0]] <= 3).all())


def test_provider_share_by_hand(audited, make):
    pipeline = audited(max_provider_share=0.5)
    pipeline.memory.limits[:] = torch.inf
    pipeline.memory.session_items[0, 0] = torch.tensor([0, 5, 10, 1, 2])  # providers 0, 0, 0, 1, 2
    request = pipeline.begin(make.keys())
    share = provider_share(request, torch.tensor([[15, 6, 3]] * 3))
    assert share[0].tolist() == pytest.approx([0.6, 0.2, 0.0])
    assert share[1].tolist() == [0.0] * 3
    shown = show(pipeline, make)
    assert not bool((shown.knowledge.providers[shown.slate[0]] == 0).any())
    of_provider = shown.knowledge.providers[shown.candidates[1]] == 0
    assert bool(of_provider.any()) and bool((shown.veto[1][of_provider] == 0).all())


def test_vetoes_of_both_exposures_and_of_two_limits_add_up_by_hand(make):
    knowledge = make.knowledge()
    knowledge.attributes["risk"] = (torch.arange(60) % 7 + 1).float()
    knowledge.attributes["maturity"] = (torch.arange(60) % 11).float()
    limits = {"risk": "risk_limit", "maturity": "age_limit"}
    audit = {"max_topic_share": 0.3, "max_provider_share": 0.45, "suitability": limits}
    pipeline = make.pipeline(knowledge=knowledge, components=TEAM, audit=audit)
    pipeline.memory.limits[:] = torch.tensor([[3.0, 9.0], [6.0, 4.0], [torch.inf, torch.inf]])
    pipeline.memory.exposure[:] = torch.tensor([0.0, 0.5, 0.2, 0.35])
    pipeline.memory.session_items[:, 0] = torch.tensor([0, 5, 10, 1, 2])  # 3 of provider 0
    pipeline.memory.session_items[1, 1] = torch.tensor([3, 3, 3, 3, 3])
    request = pipeline.begin(make.keys())
    action = torch.tensor([[0.1, -0.2], [-0.7, 0.6], [0.8, -0.4]])
    pipeline.act(request, "auditor_0", action)
    shares = [{0: 0.6, 1: 0.2, 2: 0.2}, {0: 0.3, 1: 0.1, 2: 0.1, 3: 0.5}, {0: 0.6, 1: 0.2, 2: 0.2}]
    seen = set()
    for row in range(3):
        topic_limit, provider_limit = (
            limit * (1 - float(strict))
            for limit, strict in zip((0.3, 0.45), action[row], strict=True)
        )
        for slot, item in enumerate(request.candidates[row].tolist()):
            exposed = [0.0, 0.5, 0.2, 0.35][item % 4] > topic_limit
            owned = shares[row].get(item % 5, 0.0) > provider_limit
            risk, age = pipeline.memory.limits[row].tolist()
            unsuitable_ = item % 7 + 1 > risk or item % 11 > age
            expected = float(exposed or owned) + 2.0 * unsuitable_
            assert request.veto[row, slot].item() == expected, (row, item)
            seen.add((exposed, owned, unsuitable_))
    assert len(seen) >= 7  # of the eight combinations
