import threading

import pytest
import torch

from marec_env.pipeline import topk
from marec_env.pipeline.topk import sort_rows, top_k, true_places


@pytest.mark.parametrize(
    ("rows", "width", "k"), [(1, 1, 1), (5, 30, 7), (5, 30, 30), (300, 999, 1)]
)
def test_equals_a_full_sort_where_no_scores_are_equal(rows, width, k):
    source = torch.Generator().manual_seed(rows)
    scores = torch.randn(rows, width, generator=source) * 100
    expected = scores.argsort(dim=1, descending=True)[:, :k]
    assert torch.equal(top_k(scores, k), expected)
    assert torch.equal(top_k(scores, k, ordered=False).sort(1).values, expected.sort(1).values)


def test_rows_are_chosen_alike_whatever_the_block(monkeypatch):
    scores = torch.randn(37, 50, generator=torch.Generator().manual_seed(1))
    whole = top_k(scores, 9)
    monkeypatch.setattr(topk, "_BLOCK", 120)  # two rows at a time
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


def test_a_penalty_is_added_as_a_float32_sum():
    source = torch.Generator().manual_seed(2)
    scores = torch.randn(40, 70, generator=source)
    penalty = torch.where(torch.rand(40, 70, generator=source) < 0.3, -1e4, 0.0)
    found = top_k(scores, 70, penalty=penalty)
    assert torch.equal(found, top_k(scores + penalty, 70))
    assert torch.equal(found.sort(1).values, torch.arange(70).expand(40, -1))


def test_a_workspace_made_in_inference_mode_serves_outside_it(monkeypatch):
    monkeypatch.setattr(topk, "_local", threading.local())
    scores, penalty = torch.tensor([[1.0, 3.0, 2.0]]), torch.zeros(1, 3)
    with torch.inference_mode():
        inside = top_k(scores, 2, penalty=penalty).tolist()
    assert top_k(scores, 2, penalty=penalty).tolist() == inside == [[1, 2]]


def test_true_places_are_counted_through_all_rows():
    assert true_places(torch.tensor([[True, False], [False, True]])).tolist() == [0, 3]
    assert true_places(torch.tensor([0, 5, 0, 2])).tolist() == [1, 3]
