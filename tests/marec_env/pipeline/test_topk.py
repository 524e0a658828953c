from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from marec_env.pipeline import selection
from marec_env.pipeline.selection import sort_rows, top_k


@pytest.mark.parametrize(
    ("rows", "width", "k"), [(1, 1, 1), (5, 30, 7), (5, 30, 30), (300, 999, 1)]
)
def test_equals_a_full_sort_where_no_scores_are_equal(rows, width, k):
    source = torch.Generator().manual_seed(rows)
    scores = torch.randn(rows, width, generator=source) * 100
    expected = scores.argsort(dim=1, descending=True)[:, :k]
    assert torch.equal(top_k(scores, k), expected)
    assert torch.equal(top_k(scores, k).sort(1).values, expected.sort(1).values)


def test_rows_are_chosen_alike_whatever_the_block(monkeypatch):
    scores = torch.randn(37, 50, generator=torch.Generator().manual_seed(1))
    whole = top_k(scores, 9)
    monkeypatch.setattr(selection, "_BLOCK", 120)  # two rows at a time
    assert torch.equal(top_k(scores, 9), whole)


def test_ties_go_to_the_higher_column_if_positive_and_to_the_lower_if_negative():
    assert top_k(torch.tensor([[1.0, 2.0, 2.0, 0.0, 2.0]]), 2).tolist() == [[4, 2]]
    assert top_k(torch.tensor([[-1.0, -2.0, -1.0, -3.0, -1.0]]), 2).tolist() == [[0, 2]]


def test_neighbouring_floats_are_told_apart():
    one = torch.tensor(1.0)
    above = torch.nextafter(one, torch.tensor(2.0))
    assert top_k(torch.stack([above, one, one]).unsqueeze(0), 1).tolist() == [[0]]
    below = torch.nextafter(-one, torch.tensor(-2.0))
    assert top_k(torch.stack([below, below, -one]).unsqueeze(0), 1).tolist() == [[2]]


def test_zero_and_tiny_scores_are_ordered():
    scores = torch.tensor([[0.0, 1e-38, -1e-38, 0.0]])
    assert top_k(scores, 4)[0, [0, 3]].tolist() == [1, 2]


def test_sort_rows_sorts_64_bit_keys():
    keys = torch.tensor([[3 << 40, -5, 7], [1, 2, 0]])
    assert sort_rows(keys).tolist() == [[-5, 7, 3 << 40], [0, 1, 2]]


def test_what_is_excluded_comes_last_and_by_score():
    source = torch.Generator().manual_seed(2)
    scores = torch.randn(40, 70, generator=source)
    excluded = torch.rand(40, 70, generator=source) < 0.3
    found = top_k(scores, 70, excluded=excluded)
    assert torch.equal(found, top_k(torch.where(excluded, scores - 1e4, scores), 70))
    assert torch.equal(found.sort(1).values, torch.arange(70).expand(40, -1))


@pytest.mark.parametrize("excluding", [False, True])
def test_equal_scores_are_chosen_alike_on_every_device(excluding):
    source = torch.Generator().manual_seed(3)
    scores = torch.randint(-3, 4, (20, 50), generator=source).float()
    scores[0, :2] = torch.tensor([torch.inf, -torch.inf]) if not excluding else 0.0
    excluded = torch.rand(20, 50, generator=source) < 0.3 if excluding else None
    for k in (1, 7, 50):
        expected = selection._sorted_keys(scores, excluded, k)
        assert torch.equal(top_k(scores, k, excluded=excluded), expected)


def test_threads_have_workspaces_of_their_own():
    scores = torch.randn(64, 500, generator=torch.Generator().manual_seed(4))
    expected = [top_k(scores * factor, 5) for factor in (1.0, -1.0)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda sign: top_k(scores * sign, 5), [1.0, -1.0] * 50))
    for place, columns in enumerate(found):
        assert torch.equal(columns, expected[place % 2])
