import math

import ir_measures
import pytest
import torch
from ir_measures import RR, P, R, SetF, Success, nDCG

from marec_env.errors import ConfigError
from marec_env.evaluation import metrics

USERS, ITEMS, K = 40, 60, 10


NOTHING = torch.tensor([[-2]])  # expected, by tests of other metrics than serendipity


def _metric(name, expected=NOTHING):
    def metric(slate, relevance):
        return metrics.against_relevance(slate, relevance, expected.expand(len(slate), -1))[name]

    return metric


def _golden(measure, slate, relevance):
    """Return ir-measures' value per user, with the slate as a run cut at K."""
    qrels = [
        ir_measures.Qrel(str(u), str(i), int(relevance[u, i]))
        for u in range(USERS)
        for i in range(ITEMS)
    ]
    run = [
        ir_measures.ScoredDoc(str(u), str(int(item)), float(K - position))
        for u in range(USERS)
        for position, item in enumerate(slate[u])
    ]
    found = {m.query_id: m.value for m in ir_measures.iter_calc([measure], qrels, run)}
    return torch.tensor([found[str(u)] for u in range(USERS)])


@pytest.fixture(scope="module")
def lists():
    generator = torch.Generator().manual_seed(3)
    slate = torch.stack([torch.randperm(ITEMS, generator=generator)[:K] for _ in range(USERS)])
    relevance = (torch.rand(USERS, ITEMS, generator=generator) < 0.12).long()
    relevance[0] = 0
    relevance[0, slate[0, 3]] = 1  # fewer relevant items than positions: IDCG at min(relevant, k)
    relevance[1, :] = 1  # more
    graded = relevance * torch.randint(1, 4, (USERS, ITEMS), generator=generator)
    return slate, relevance, graded


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("precision", P @ K),
        ("recall", R @ K),
        ("f1", SetF),
        ("hit_rate", Success @ K),
        ("mrr", RR @ K),
        ("ndcg", nDCG @ K),
    ],
)
def test_equal_to_ir_measures(lists, name, measure):
    slate, relevance, _ = lists
    torch.testing.assert_close(
        _metric(name)(slate, relevance), _golden(measure, slate, relevance), atol=1e-6, rtol=0
    )


def test_graded_ndcg_equals_ir_measures(lists):
    slate, _, graded = lists
    expected = _golden(nDCG @ K, slate, graded)
    torch.testing.assert_close(_metric("ndcg")(slate, graded), expected, atol=1e-6, rtol=0)


NAMES = ("precision", "recall", "f1", "hit_rate", "mrr", "ndcg", "serendipity")
AGAINST_RELEVANCE = [pytest.param(_metric(name, torch.tensor([[4]])), id=name) for name in NAMES]


@pytest.mark.parametrize("function", AGAINST_RELEVANCE)
def test_users_with_nothing_relevant_have_no_value(function):
    slate = torch.tensor([[0, 1], [0, 1]])
    relevance = torch.tensor([[0, 0, 0, 0, 0], [0, 1, 1, 0, 0]])
    values = function(slate, relevance)
    assert values[0].isnan()
    assert values[1] > 0
    nowhere = function(slate, torch.tensor([[0, 0, 0, 1, 0]] * 2))
    assert nowhere.tolist() == [0.0, 0.0]  # relevant, but not in the list


@pytest.mark.parametrize("function", AGAINST_RELEVANCE)
def test_a_repeat_is_as_good_as_an_irrelevant_item(function):
    relevance = torch.tensor([[0, 1, 3, 0, 0, 0, 0], [0, 2, 1, 0, 0, 0, 0]])
    repeated = torch.tensor([[2, 2, 1, 2, 1], [3, 1, 1, 1, 2]])
    distinct = torch.tensor([[2, 3, 1, 5, 6], [3, 1, 5, 6, 2]])
    assert torch.equal(function(repeated, relevance), function(distinct, relevance))
    assert function(repeated, relevance).max() <= 1.0


def test_metrics_by_hand_at_distinct_values():
    slate = torch.tensor([[5, 2, 7, 1]])
    relevance = torch.zeros(1, 9)
    relevance[0, [1, 2, 8]] = torch.tensor([3.0, 1.0, 2.0])
    values = metrics.against_relevance(slate, relevance, torch.tensor([[1]]))
    found = {name: float(value) for name, value in values.items()}
    # gains 0, 1, 0, 3 against 3, 2, 1
    gained, ideal = 1 / math.log2(3) + 3 / math.log2(5), 3 + 2 / math.log2(3) + 1 / 2
    assert found == pytest.approx(
        {
            "precision": 2 / 4,
            "recall": 2 / 3,
            "f1": 4 / 7,
            "hit_rate": 1.0,
            "mrr": 1 / 2,
            "ndcg": gained / ideal,
            "serendipity": 1 / 4,
        }
    )


def test_empty_positions_count_as_misses():
    slate = torch.tensor([[2, -1, -1, -1]])
    relevance = torch.tensor([[1, 0, 1]])  # a clamped -1 would read item 0, which is relevant
    assert _metric("precision")(slate, relevance)[0] == pytest.approx(0.25)
    assert _metric("recall")(slate, relevance)[0] == pytest.approx(0.5)


def test_coverage_is_the_share_shown_at_all():
    assert metrics.coverage(torch.tensor([3.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])) == 0.25


def test_intra_list_diversity_by_hand():
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    slate = torch.tensor([[0, 1, 2], [0, 2, -1], [1, -1, -1]])
    values = metrics.intra_list_diversity(slate, features.__getitem__)
    # pairs (0,1), (0,2), (1,2): distances 1, 0, 1
    torch.testing.assert_close(values[:2], torch.tensor([2 / 3, 0.0]), atol=1e-6, rtol=0)
    assert values[2].isnan()


def test_novelty_in_bits():
    counts = torch.tensor([4.0, 2.0, 1.0, 1.0, 0.0])
    slate = torch.tensor([[0, 1], [2, 4], [0, -1]])
    torch.testing.assert_close(metrics.novelty(slate, counts), torch.tensor([1.5, 3.0, 1.0]))


def test_serendipity_wants_relevant_and_unexpected():
    slate = torch.tensor([[0, 1, 2, 3]])
    relevance = torch.tensor([[1, 1, 0, 0]])
    assert _metric("serendipity", torch.tensor([[0, 2]]))(slate, relevance)[0] == 0.25


def test_popularity_bands_hold_equally_many_items():
    counts = torch.tensor([9, 1, 5, 5, 0, 7])
    assert metrics.popularity_bands(counts, bands=3).tolist() == [2, 0, 1, 1, 0, 2]


def test_cold_items_are_those_of_at_most_one_interaction():
    assert metrics.cold_items(torch.tensor([2, 0, 1, 5])).tolist() == [0, 1, 1, 0]


def test_miscalibration_by_hand():
    topics = torch.tensor([0, 0, 1, 1])
    history = torch.tensor([[-1, 0, 2], [0, 1, 2], [-1, -1, -1]])
    slate = torch.tensor([[1, 3], [0, 1], [0, 1]])
    values = metrics.miscalibration(slate, history, topics, 2)
    assert values[0] == pytest.approx(0.0, abs=1e-6)
    p, q = (2 / 3, 1 / 3), (1.0, 0.0)
    expected = sum(
        a * torch.log(torch.tensor(a / (0.99 * b + 0.01 * a))) for a, b in zip(p, q, strict=True)
    )
    assert values[1] == pytest.approx(float(expected), rel=1e-5)
    assert values[2].isnan()


def test_lists_without_positions_and_unknown_items_are_refused():
    relevance = torch.tensor([[1.0, 0.0, 1.0]])
    for slate, message in ((torch.zeros(1, 0, dtype=torch.int64), "no metric"),
                           (torch.tensor([[0, 3]]), "item 3 of 3")):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            metrics.against_relevance(slate, relevance, NOTHING)


def test_what_is_not_zero_may_be_given_apart(lists):
    slate, _, graded = lists
    whole = metrics.against_relevance(slate, graded, NOTHING)
    several = graded[2:]  # at most 22 of 60 are relevant there
    assert (several > 0).sum(1).max() <= 22
    apart = several.sort(dim=1, descending=True).values[:, :22].roll(5, dims=1)
    given = metrics.against_relevance(slate[2:], several, NOTHING, apart)
    for name, values in given.items():
        assert torch.equal(values, whole[name][2:]), name
