"""How many events of a user, known from elsewhere, single him out in a log."""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env import random
from marec_env.data.interactions import InteractionLog, lexicographic

_DAY = 86_400  # seconds
_CELLS = 1 << 24  # of a block of users by users


def singled_out(
    log: InteractionLog, events: int, *, days: int | None = None, seed: int = 0
) -> Tensor:
    """Return for each user with that many events whether no other has them all, bool ``[V]``.

    A user's events are drawn from his own. De Montjoye et al. ("Unique in the crowd", Scientific
    Reports 3, 2013) measure the share of the users that is so singled out.

    Args:
        log: of ``U`` users.
        events: that an attacker knows of each.
        days: if given, he also knows when, within bins of so many days.
        seed: of the draws.
    """
    place = log.item
    if days is not None:
        place = place + log.num_items * ((log.time - log.time.min()) // (days * _DAY))
    kinds, place = torch.unique(place, return_inverse=True)
    pair = torch.unique(log.user * len(kinds) + place)
    user, place = pair // len(kinds), pair % len(kinds)
    count = torch.bincount(user, minlength=log.num_users)
    keys = random.session_keys(seed, torch.arange(len(pair)))
    draw = random.uniform(keys, 0, "privacy/known_events", 1).squeeze(1)
    order = lexicographic(draw, user)
    start = torch.cumsum(count, 0) - count
    known = (count >= events).nonzero().squeeze(1)
    drawn = place[order][start[known][:, None] + torch.arange(events)]  # [V, events]
    # Who has which event: rows of the events asked for.
    asked, row = torch.unique(drawn, return_inverse=True)
    where = torch.full((len(kinds),), -1)
    where[asked] = torch.arange(len(asked))
    alone = []
    size = max(1, _CELLS // max(1, log.num_users * events))
    for block in torch.split(row, size):
        wanted, inside = torch.unique(block, return_inverse=True)
        local = torch.full((len(asked) + 1,), -1)
        local[wanted] = torch.arange(len(wanted))
        at = local[where[place]]
        at[where[place] < 0] = -1
        has = torch.zeros(len(wanted), log.num_users, dtype=torch.bool)
        has[at[at >= 0], user[at >= 0]] = True
        alone.append(has[inside].all(1).sum(1) == 1)
    return torch.cat(alone) if alone else torch.zeros(0, dtype=torch.bool)
