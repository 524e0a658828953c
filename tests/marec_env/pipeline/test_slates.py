import itertools
from types import SimpleNamespace

import pytest
import torch

from marec_env import random
from marec_env.errors import ConfigError
from marec_env.pipeline import Request, ranking
from marec_env.pipeline.ranking import compose_slate, rank_within_topic


def slate_log_propensity(logits, chosen):
    request = SimpleNamespace(slate_logits=logits, slate_slot=chosen)
    return Request.log_propensity.func(request)


def greedy(scores, topics, diversity, size):
    """The definition: take the best item, then lower its topic's by the penalty, and so on."""
    value, chosen = scores.clone(), []
    for _ in range(size):
        best = int(value.argmax())
        chosen.append(best)
        value[topics == topics[best]] -= diversity
        value[best] = -torch.inf
    return chosen


def test_rank_within_topic_by_hand():
    scores = torch.tensor([[0.5, -1.0, 2.0, 0.5, -3.0]])
    topics = torch.tensor([[0, 1, 0, 0, 1]])
    assert rank_within_topic(scores, topics).tolist() == [[1, 0, 0, 2, 1]]


def test_ranks_are_alike_on_every_device():
    source = torch.Generator().manual_seed(7)
    scores = torch.randint(-4, 5, (30, 40), generator=source) / 4.0  # with ties, and zeros
    scores[scores == 0.25] = -0.0
    topics = torch.randint(0, 5, (30, 40), generator=source)
    expected = ranking._rank_by_runs(scores, topics)
    assert torch.equal(rank_within_topic(scores, topics), expected)


@pytest.mark.parametrize("diversity", [0.0, 0.3, 5.0])
def test_slate_at_low_temperature_equals_the_greedy_with_penalty(diversity):
    source = torch.Generator().manual_seed(3)
    scores = torch.randn(20, 15, generator=source)
    topics = torch.randint(0, 4, (20, 15), generator=source)
    keys = random.session_keys(0, torch.arange(20))
    chosen, _ = compose_slate(
        scores, topics, torch.full((20,), diversity), torch.full((20,), 1e-6), 6, keys,
        torch.zeros(20, dtype=torch.int64),
    )  # fmt: skip
    expected = [greedy(s, t, diversity, 6) for s, t in zip(scores, topics, strict=True)]
    assert chosen.tolist() == expected


def plackett_luce(logits, slate):
    """The definition, item by item, in float64."""
    weight = logits.double().exp()
    left, probability = weight.sum(), 1.0
    for item in slate:
        probability *= weight[item] / left
        left = left - weight[item]
    return float(probability)


def test_propensity_equals_the_definition_and_sums_to_one_over_all_slates():
    logits = torch.tensor([0.3, -1.2, 2.0, 0.0, 1.1])
    slates = list(itertools.permutations(range(5), 3))
    log_probability = slate_log_propensity(logits.expand(len(slates), -1), torch.tensor(slates))
    for slate, value in zip(slates, log_probability.exp().tolist(), strict=True):
        assert value == pytest.approx(plackett_luce(logits, slate), rel=1e-5)
    assert float(log_probability.exp().sum()) == pytest.approx(1.0, abs=1e-5)


def test_propensity_of_the_whole_candidate_list():
    logits = torch.tensor([[0.5, -0.5, 1.5]])
    value = slate_log_propensity(logits, torch.tensor([[2, 0, 1]]))
    assert float(value.exp()) == pytest.approx(plackett_luce(logits[0], [2, 0, 1]), rel=1e-5)


def test_slates_occur_as_often_as_their_propensity_says():
    sessions = 20_000
    scores = torch.tensor([0.2, 0.0, 0.9, -0.4]).expand(sessions, -1)
    topics = torch.tensor([0, 0, 1, 1]).expand(sessions, -1)
    chosen, logits = compose_slate(
        scores,
        topics,
        torch.full((sessions,), 0.5),
        torch.full((sessions,), 0.7),
        2,
        random.session_keys(1, torch.arange(sessions)),
        torch.zeros(sessions, dtype=torch.int64),
    )
    log_probability = slate_log_propensity(logits, chosen)
    for slate in itertools.permutations(range(4), 2):
        hit = (chosen == torch.tensor(slate)).all(1)
        expected = float(log_probability[hit].exp().mean())
        spread = (expected * (1 - expected) / sessions) ** 0.5
        assert abs(float(hit.float().mean()) - expected) < 5 * spread


def test_a_request_knows_the_propensity_of_its_slate(make):
    pipeline = make.pipeline()
    request = pipeline.begin(make.keys())
    pipeline.act(request, "ranking_0", torch.tensor([[0.5] * 6 + [0.0, 1.0]] * 3))
    pipeline.finish(request)
    for row in range(3):
        expected = plackett_luce(request.slate_logits[row], request.slate_slot[row].tolist())
        assert float(request.log_propensity[row].exp()) == pytest.approx(expected, rel=1e-4)


def test_a_slate_that_was_not_drawn_has_no_propensity(make):
    with pytest.raises(ConfigError, match="was not drawn by the component 'ranking'"):
        _ = make.pipeline().begin(make.keys()).log_propensity
