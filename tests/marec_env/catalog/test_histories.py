"""Pasts in compressed rows: the same as in padded tables."""

from __future__ import annotations

import torch

from marec_env.catalog.histories import Histories

# Of three users the last three interactions at most: the first one's oldest is left out, the
# second has none.
ITEM = torch.tensor([9, 4, 5, 4, 7, 8])
LIKED = torch.tensor([True, False, True, True, False, True])
PASTS = Histories(torch.tensor([1, 4, 4]), torch.tensor([4, 4, 6]), ITEM, LIKED, 3)


def test_rows_are_padded_in_front_in_the_order_asked_for() -> None:
    items, liked = PASTS.of(torch.tensor([2, 0, 1, 0]))
    assert items.tolist() == [[-1, 7, 8], [4, 5, 4], [-1, -1, -1], [4, 5, 4]]
    first = [False, True, True]
    assert liked.tolist() == [[False, False, True], first, [False] * 3, first]
    assert PASTS.count.tolist() == [3, 0, 2]


def test_a_table_becomes_rows_and_again_the_table() -> None:
    items, liked = PASTS.of(torch.arange(3))
    again = Histories.of_rows(items, liked)
    for one, other in zip(again.of(torch.arange(3)), (items, liked), strict=True):
        assert torch.equal(one, other)
    assert again.likes().item.tolist() == PASTS.likes().item.tolist()


def test_likes_are_those_within_the_kept_past() -> None:
    likes = PASTS.likes()
    assert likes.count.tolist() == [2, 0, 1]
    assert [likes.item[likes.begin[u] : likes.end[u]].tolist() for u in range(3)] == [
        [5, 4],
        [],
        [8],
    ]
    assert likes.item[likes.begin[1]] >= 0  # of who liked nothing there is a place to read


def test_nobody_need_have_a_past() -> None:
    empty = torch.zeros(2, 0, dtype=torch.int64)
    none = Histories.of_rows(empty, empty.bool())
    assert none.of(torch.tensor([1]))[0].shape == (1, 0)
    assert none.likes().count.tolist() == [0, 0]
