"""Quotas for recall channels, and their merger into one list of candidates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from marec_env.pipeline.lookup import look_up
from marec_env.pipeline.topk import sort_rows

__all__ = ["first_occurrences", "merge", "quotas_of"]


def quotas_of(levels: Tensor, total: int) -> Tensor:
    """Share ``total`` places in proportion to levels, by largest remainders.

    Args:
        levels: int64 ``[B, channels]``, >= 0; a row of zeros shares equally.
        total: the candidates to be found, C.

    Returns:
        Int64 ``[B, channels]``; rows sum to ``total``; ties go to the earlier channel.
    """
    channels = levels.shape[1]
    weight = torch.where(levels.sum(1, keepdim=True) > 0, levels, torch.ones_like(levels))
    scaled = weight * total
    whole = weight.sum(1, keepdim=True)
    quota = torch.div(scaled, whole, rounding_mode="floor")
    remainder = scaled - quota * whole
    order = torch.arange(channels - 1, -1, -1, device=levels.device)
    rank = (remainder * channels + order).argsort(1, descending=True).argsort(1)
    missing = total - quota.sum(1, keepdim=True)
    return quota + (rank < missing).to(torch.int64)


def merge(
    offers: Sequence[Tensor], quotas: Tensor, unavailable: Tensor, fallback: Tensor
) -> tuple[Tensor, Tensor]:
    """Let channels fill their quotas in order; no item twice, no unavailable item.

    What a channel cannot fill (too little on offer) goes to the channels again in order, then to
    ``fallback``.

    Args:
        offers: per channel, int64 ``[B, L_c]`` items, best first, -1 for none; no item twice in a
            row of one channel (:func:`first_occurrences` sees to it).
        quotas: int64 ``[B, channels]`` with equal row sums C.
        unavailable: bool ``[B, N]``.
        fallback: int64 ``[N]``, the whole catalog in some order.

    Returns:
        Candidates int64 ``[B, C]`` in order of choice and the channel of each, int64 ``[B, C]``
        (the number of channels for the fallback).
    """
    sessions, count = unavailable.shape
    total = int(quotas[0].sum())
    device = quotas.device
    # A power of two of columns: one bit mask sends -1 to the last, which stands for no item.
    none = (1 << count.bit_length()) - 1
    free = torch.zeros(sessions, none + 1, dtype=torch.bool, device=device)
    torch.logical_not(unavailable, out=free[:, :count])
    # The last place takes what is not chosen; a place not yet filled holds no item.
    chosen = torch.full((sessions, total + 1), none, dtype=torch.int64, device=device)
    filled = torch.zeros(sessions, 1, dtype=torch.int64, device=device)
    turns: list[tuple[int, Tensor]] = []  # who filled, and from which place on

    def take(items: Tensor, quota: Tensor) -> Tensor:
        """Give each session the first ``quota`` free ones of ``items``; return what is missing."""
        nonlocal filled
        wanted = free.gather(1, items & none)
        rank = wanted.cumsum(1)
        wanted.logical_and_(rank <= quota)
        got = torch.minimum(rank[:, -1:], quota)
        begin = int(filled.min())
        chosen.scatter_(1, torch.where(wanted, rank.add_(filled - 1), total), items)
        filled = filled + got
        free.scatter_(1, chosen[:, begin : int(filled.max())], False)
        return quota - got

    def fill(items: Tensor, quota: Tensor, channel: int) -> None:
        turns.append((channel, filled))
        # Usually all that is wanted stands at the head, for only what others took is in its way.
        first, head = 0, int((quota + filled).max())
        missing = quota
        while first < items.shape[1] and bool((missing > 0).any()):
            missing = take(items[:, first : first + head], missing)
            first, head = first + head, 2 * head

    for channel, items in enumerate(offers):
        fill(items, quotas[:, channel : channel + 1], channel)
    for channel, items in enumerate([*offers, fallback.expand(sessions, -1)]):
        if int(filled.min()) == total:
            break
        fill(items, total - filled, channel)
    return chosen[:, :total], _sources(turns, sessions, total)


def _sources(turns: list[tuple[int, Tensor]], sessions: int, total: int) -> Tensor:
    """Return who filled each place, int64 ``[B, C]``, from (channel, first place ``[B, 1]``)."""
    first = torch.cat([place for _, place in turns], dim=1)
    places = torch.arange(total, device=first.device).expand(sessions, -1)
    turn = torch.searchsorted(first, places.contiguous(), right=True) - 1
    channels = torch.tensor([channel for channel, _ in turns], device=first.device)
    return look_up(channels, turn)


def first_occurrences(items: Tensor) -> Tensor:
    """Replace each later occurrence of an item in its row by -1: ``[B, L] -> [B, L]``."""
    length = items.shape[1]
    places = torch.arange(length, device=items.device)
    ordered = sort_rows((items << 32) | places)
    item, place = ordered >> 32, ordered & 0xFFFFFFFF
    repeated = torch.zeros_like(item, dtype=torch.bool)
    repeated[:, 1:] = item[:, 1:] == item[:, :-1]
    return torch.empty_like(items).scatter_(1, place, torch.where(repeated, -1, item))
