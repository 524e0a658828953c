import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marec_env.pipeline import selection
from marec_env.pipeline.gpu_kernels import TensorMerger
from marec_env.pipeline.recall import _quotas_by_sorting, quotas_of
from marec_env.pipeline.selection import first_occurrences


def merge(offers, quotas, unavailable, fallback):
    total = int(quotas[0].sum())
    return selection.merge(offers.__getitem__, quotas, unavailable, fallback, total)


def merge_on_cuda(offers, quotas, unavailable, fallback):
    """What :func:`merge` does on CUDA."""
    by_tensors = TensorMerger(unavailable, int(quotas[0].sum()))
    return selection._serve(by_tensors, offers.__getitem__, quotas, fallback)


def test_quotas_by_hand():
    levels = torch.tensor([[1, 1, 1], [3, 1, 0], [0, 0, 0], [0, 0, 2]])
    # 10 places: 10/3 each, the odd one to the earliest; 7.5 and 2.5, a tie of remainders.
    assert quotas_of(levels, 10).tolist() == [[4, 3, 3], [8, 2, 0], [4, 3, 3], [0, 0, 10]]


def test_largest_remainders_win():
    # 7 places at 3 : 2 : 1 are 3.5, 2.33, 1.17: the half rounds up.
    assert quotas_of(torch.tensor([[3, 2, 1]]), 7).tolist() == [[4, 2, 1]]


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.integers(0, 15), min_size=4, max_size=4), min_size=1, max_size=5),
    st.integers(1, 120),
)
def test_quotas_sum_exactly_and_are_within_one_of_their_share(rows, total):
    levels = torch.tensor(rows)
    quota = quotas_of(levels, total)
    assert quota.sum(1).tolist() == [total] * len(rows)
    weight = torch.where(levels.sum(1, keepdim=True) > 0, levels, 1).double()
    exact = total * weight / weight.sum(1, keepdim=True)
    assert bool(((quota - exact).abs() < 1).all())
    assert torch.equal(_quotas_by_sorting(levels, total), quota)


@pytest.mark.parametrize("merge", [merge, merge_on_cuda])
def test_merge_by_hand(merge):
    offers = [torch.tensor([[5, 1, 2, 3]]), torch.tensor([[1, 5, 7, 8]])]
    unavailable = torch.zeros(1, 10, dtype=torch.bool)
    unavailable[0, 2] = True
    chosen, source = merge(offers, torch.tensor([[3, 2]]), unavailable, torch.arange(10))
    # Channel 0 takes 5, 1 and, 2 being seen, 3; channel 1 finds 1 and 5 taken.
    assert chosen.tolist() == [[5, 1, 3, 7, 8]]
    assert source.tolist() == [[0, 0, 0, 1, 1]]


@pytest.mark.parametrize("merge", [merge, merge_on_cuda])
def test_what_a_channel_lacks_goes_to_the_others_in_order_and_then_to_the_fallback(merge):
    offers = [torch.tensor([[4, -1, -1]]), torch.tensor([[6, 4, 9]])]
    unavailable = torch.zeros(1, 10, dtype=torch.bool)
    unavailable[0, 0] = True
    chosen, source = merge(offers, torch.tensor([[4, 1]]), unavailable, torch.arange(10))
    assert chosen.tolist() == [[4, 6, 9, 1, 2]]
    assert source.tolist() == [[0, 1, 1, 2, 2]]


def test_later_occurrences_of_an_item_are_struck_out():
    offer = torch.tensor([[3, 3, 1, 3], [-1, 2, -1, 2]])
    assert first_occurrences(offer).tolist() == [[3, -1, 1, -1], [-1, 2, -1, -1]]


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_never_an_item_twice_nor_an_unavailable_one(seed):
    source = torch.Generator().manual_seed(seed)
    sessions, items, total = 4, 30, 12
    offers = [
        torch.stack([torch.randperm(items, generator=source)[:length] for _ in range(sessions)])
        for length in (12, 5, 12)
    ]
    offers[1][torch.rand(sessions, 5, generator=source) < 0.4] = -1
    unavailable = torch.rand(sessions, items, generator=source) < 0.5
    unavailable[:, :total] = False
    quotas = quotas_of(torch.randint(0, 4, (sessions, 3), generator=source), total)
    fallback = torch.randperm(items, generator=source)
    chosen, channel = merge(offers, quotas, unavailable, fallback)
    before = unavailable.clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "_COPIED", 0)  # as of a large catalog
        large = merge(offers, quotas, unavailable, fallback)
    assert torch.equal(unavailable, before)
    for again, source_again in (large, merge_on_cuda(offers, quotas, unavailable, fallback)):
        assert torch.equal(chosen, again)
        assert torch.equal(channel, source_again)
    for row in range(sessions):
        assert len(set(chosen[row].tolist())) == total
        assert not bool(unavailable[row, chosen[row]].any())
        for place, offer in enumerate(offers):
            came = set(chosen[row][channel[row] == place].tolist())
            assert came <= set(offer[row].tolist())
            if came and len(came) < int(quotas[row, place]):  # it had no more to give
                left = set(offer[row].tolist()) - {-1} - set(chosen[row].tolist())
                assert all(bool(unavailable[row, item]) for item in left)
