"""What a session begins with that depends on its user alone, as tables of all users."""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.compiled import eager
from marec_env.pipeline.memory import SessionMemory
from marec_env.pipeline.selection import top_k
from marec_env.registry import is_own
from marec_env.users.base import Users
from marec_env.vector import Rows
from marec_env.world import World

_MOST_USERS = 1 << 18  # of whom tables are made: at 50 items of history, 450 best, 10 kB each
_BLOCK = 1024  # users computed together
_CELLS = 1 << 24  # of sessions and items whose relevance is held at once, on the CPU


def by_user(world: World, users: Users, memory: SessionMemory, depth: int) -> dict[str, Tensor]:
    """Return what :meth:`SessionMemory.beginning` gives for each user, and ``top``, the ``depth``
    items that the user likes best of those not consumed before, by name.

    Rows 0 ... U - 1 are of users as the recommender knows them, the next U of the same users to
    whom it is new. Nothing is returned where that does not pay: on the CPU only sessions that begin
    are computed; elsewhere all are, at every step (:class:`marec_env.vector.Rows`).
    """
    population, device = world.population, memory.device
    everyone = torch.arange(population.num_users, device=device)
    if device.type == "cpu" or len(everyone) > _MOST_USERS or is_own(world.config.users.model):
        return {}
    seen_by_us = world.learned.known_users.to(device)
    found: dict[str, list[Tensor]] = {}
    for known in (seen_by_us, torch.zeros_like(seen_by_us)):
        for people in torch.split(everyone, _BLOCK):
            relevance = users.relevance_at_start(people)
            if relevance is None:
                return {}
            past, liked = population.history.of(people)
            past = torch.where(known[people].unsqueeze(1), past, -1)
            block = memory.beginning(past, liked)
            block["top"] = top_k(relevance, depth, excluded=memory.seen_before(past))
            for name, values in block.items():
                found.setdefault(name, []).append(values)
    return {name: torch.cat(blocks) for name, blocks in found.items()}


def best_at_start(users: Users, seen: Tensor, depth: int, rows: Rows) -> Tensor:
    """Return the ``depth`` items that users of ``rows`` like best of those not ``seen``, bool
    ``[B, N]``: int64 ``[n, depth]``. Of a large catalog a few sessions are computed at a time.
    """
    count, some = len(rows.of(seen[:, 0])), max(1, _CELLS // seen.shape[1])
    if not eager(seen) or count <= some:
        relevance = users.long_term_relevance(rows=rows.index)
        return top_k(relevance, depth, excluded=rows.of(seen))
    which = torch.arange(count) if rows.index is None else rows.index
    parts = torch.split(which, some)
    relevances = (users.long_term_relevance(rows=part) for part in parts)
    found = zip(relevances, parts, strict=True)
    return torch.cat([top_k(values, depth, excluded=seen[part]) for values, part in found])
