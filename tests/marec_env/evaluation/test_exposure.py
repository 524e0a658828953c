import pytest
import torch

from marec_env.evaluation.comparison import MAX_LISTED_GROUPS, Shares


def test_shares_and_gini_by_hand():
    found = Shares.of(
        torch.tensor([6.0, 0.0, 2.0, 0.0]),
        torch.tensor([3.0, 0.0, 0.0, 0.0]),
        torch.tensor([7, 7, 7, 2]),
    )
    # Groups in the order of their numbers: 2 holds a quarter of the items and is never shown.
    assert found.groups == 2
    assert found.items == pytest.approx([0.25, 0.75])
    assert found.impressions == pytest.approx([0.0, 1.0])
    assert found.clicks == pytest.approx([0.0, 1.0])
    assert found.gini == pytest.approx(0.5)


def test_nothing_shown_is_shared_equally_and_many_groups_are_only_summed_up():
    few = Shares.of(torch.zeros(3), torch.zeros(3), torch.arange(3))
    assert few.impressions == [0.0, 0.0, 0.0]
    assert few.gini == 0.0
    many = MAX_LISTED_GROUPS + 1
    found = Shares.of(torch.ones(many), torch.zeros(many), torch.arange(many))
    assert (found.groups, found.gini) == (many, pytest.approx(0.0))
    assert found.items == found.impressions == found.clicks == []
