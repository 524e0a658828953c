"""What users consumed before, in compressed rows: memory grows with interactions, not with users
times the longest past.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Histories:
    """The pasts of ``U`` users, one behind the other among ``P`` interactions, oldest first.

    Of a log, ``item`` is the log's own tensor: a past ends where the user's interactions do, and
    begins at most ``length`` before.
    """

    begin: Tensor
    """Int64 ``[U]``, the place of each user's first kept interaction; ascending."""
    end: Tensor
    """Int64 ``[U]``, the place behind the last one; at most the next user's ``begin``."""
    item: Tensor
    """Int64 ``[P]``; -1 stands for nothing."""
    liked: Tensor
    """Bool ``[P]``: whether the user liked it."""
    length: int
    """Interactions kept of a user, at most: L."""

    @classmethod
    def of_rows(cls, item: Tensor, liked: Tensor) -> Histories:
        """Return the pasts of a table, int64 and bool ``[U, L]``, padded in front with -1."""
        users, length = item.shape
        begin = torch.arange(users, device=item.device) * length
        return cls(begin, begin + length, item.flatten(), liked.flatten(), length)

    def of(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """Return the items of ``n`` users, int64 ``[n, L]`` padded in front with -1, and which of
        them they liked, bool.
        """
        back = torch.arange(-self.length, 0, device=users.device)
        place = self.end[users].unsqueeze(1) + back
        there = place >= self.begin[users].unsqueeze(1)
        place = place.clamp(min=0)
        return torch.where(there, self.item[place], -1), there & self.liked[place]

    def likes(self) -> Histories:
        """Return what was liked alone.

        A last place, of nobody, makes ``begin`` one that can be read where a user liked nothing.
        """
        size = len(self.item)
        starts, ends = (torch.bincount(place, minlength=size) for place in (self.begin, self.end))
        kept = (starts[:size] - ends[:size]).cumsum(0) > 0 if size else self.liked
        kept = kept & self.liked & (self.item >= 0)
        before = torch.nn.functional.pad(kept.cumsum(0), (1, 0))
        item = torch.nn.functional.pad(self.item[kept], (0, 1))
        return replace(
            self,
            begin=before[self.begin],
            end=before[self.end],
            item=item,
            liked=torch.ones_like(item, dtype=torch.bool),
        )

    @property
    def count(self) -> Tensor:
        """Int64 ``[U]``, the places of each user."""
        return self.end - self.begin

    def to(self, device: torch.device) -> Histories:
        """Return the same on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("begin", "end", "item", "liked")}
        return replace(self, **moved)
