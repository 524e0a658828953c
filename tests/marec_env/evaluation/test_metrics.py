import ir_measures
import pytest
import torch
from ir_measures import AP, RR, P, R, SetF, Success, nDCG

from marec_env.evaluation import metrics

USERS, ITEMS, K = 40, 60, 10


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
    ("function", "measure"),
    [
        (metrics.precision, P @ K),
        (metrics.recall, R @ K),
        (metrics.f1, SetF),
        (metrics.hit_rate, Success @ K),
        (metrics.reciprocal_rank, RR @ K),
        (metrics.average_precision, AP @ K),
        (metrics.ndcg, nDCG @ K),
    ],
)
def test_equal_to_ir_measures(lists, function, measure):
    slate, relevance, _ = lists
    torch.testing.assert_close(
        function(slate, relevance), _golden(measure, slate, relevance), atol=1e-6, rtol=0
    )


def test_graded_ndcg_equals_ir_measures(lists):
    slate, _, graded = lists
    expected = _golden(nDCG @ K, slate, graded)
    torch.testing.assert_close(metrics.ndcg(slate, graded), expected, atol=1e-6, rtol=0)


def test_users_with_nothing_relevant_are_left_out_of_means():
    slate = torch.tensor([[0, 1], [0, 1]])
    relevance = torch.tensor([[0, 0, 0], [0, 1, 1]])
    for function in (metrics.recall, metrics.f1, metrics.ndcg, metrics.hit_rate):
        values = function(slate, relevance)
        assert values[0].isnan()
        assert metrics.mean_over_users(values) == pytest.approx(float(values[1]))
    assert metrics.recall(slate, relevance)[1] == pytest.approx(0.5)
    assert metrics.f1(slate, relevance)[1] == pytest.approx(0.5)
    assert metrics.reciprocal_rank(slate, relevance)[1] == pytest.approx(0.5)


def test_empty_positions_count_as_misses():
    slate = torch.tensor([[2, -1, -1, -1]])
    relevance = torch.tensor([[1, 0, 1]])  # a clamped -1 would read item 0, which is relevant
    assert metrics.precision(slate, relevance)[0] == pytest.approx(0.25)
    assert metrics.recall(slate, relevance)[0] == pytest.approx(0.5)


def test_coverage_counts_distinct_items():
    assert metrics.coverage(torch.tensor([[0, 1], [1, -1]]), num_items=8) == 0.25


def test_intra_list_diversity_by_hand():
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    slate = torch.tensor([[0, 1, 2], [0, 2, -1], [1, -1, -1]])
    values = metrics.intra_list_diversity(slate, features)
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
    assert metrics.serendipity(slate, relevance, torch.tensor([[0, 2]]))[0] == 0.25


def test_popularity_bands_hold_equally_many_items():
    counts = torch.tensor([9, 1, 5, 5, 0, 7])
    assert metrics.popularity_bands(counts, bands=3).tolist() == [2, 0, 1, 1, 0, 2]


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
