"""How many items of each topic to show, boredom to come included.

A plan shows ``n_t`` items of topic t at every request from now on. Exposure then has a closed form,
``m_h = rho^h m_0 + (1 - rho^h) n_t / K``, so the clicks that the plan brings over the next requests
are a sum over topics,

    V = sum_t V_t(n_t),    V_t(n) = sum_h w_h sum_{j <= n} sigmoid(r_tj - loss(m_h)),

and the best numbers with ``sum_t n_t = K`` follow by dynamic programming over topics. Only the
first slate is shown; the next request plans anew (receding horizon: Bertsekas, "Dynamic programming
and optimal control", 2017, ch. 6). Where boredom is weak the plan is nearly myopic, where it is
strong it keeps below the threshold, and in between it weighs the two.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["AHEAD", "best_counts", "plan_values"]

AHEAD = ((0, 1), (1, 1), (2, 2), (4, 4), (8, 8))
"""Requests ahead that are looked at, and how many requests each stands for: sixteen in all."""
_CELLS = 1 << 22  # numbers held at once
_NOTHING = -1e9  # logit of an item that a topic does not have


def plan_values(ranked: Tensor, losses: Tensor) -> Tensor:
    """Return the clicks that showing ``n`` items of each topic brings, float32 ``[B, T, K + 1]``.

    Args:
        ranked: float32 ``[B, T, K]``, click logits of each topic's best items without boredom, best
            first; ``-inf`` where the topic has no more.
        losses: float32 ``[B, T, K + 1, H]``, logits that boredom takes at the requests
            :data:`AHEAD` if ``n`` items are shown at each.
    """
    sessions, topics, size = ranked.shape
    weights = torch.tensor([float(count) for _, count in AHEAD], device=ranked.device)
    shown = torch.ones(size + 1, size, device=ranked.device).tril(-1)  # row n: the first n items
    logits = ranked.clamp(min=_NOTHING)
    step = max(1, _CELLS // (topics * (size + 1) * size * len(AHEAD)))
    parts = []
    for first in range(0, sessions, step):
        rows = slice(first, first + step)
        chance = torch.sigmoid(logits[rows, :, None, None, :] - losses[rows].unsqueeze(-1))
        parts.append(((chance * shown[:, None, :]).sum(-1) * weights).sum(-1))
    values = torch.cat(parts)
    # A topic cannot give more items than it has.
    missing = torch.isneginf(ranked).to(torch.float32) @ shown.T > 0
    return values.masked_fill(missing, _NOTHING)


def best_counts(values: Tensor) -> Tensor:
    """Return how many items of each topic make the best slate, int64 ``[B, T]`` with row sums K.

    Args:
        values: float32 ``[B, T, K + 1]``, what 0 ... K items of each topic are worth.
    """
    sessions, topics, places = values.shape
    best = torch.full((sessions, places), 2 * _NOTHING, device=values.device)
    best[:, 0] = 0.0
    choices = []
    for topic in range(topics):
        options = torch.full((sessions, places, places), 4 * _NOTHING, device=values.device)
        for count in range(places):  # [.., total, count]: of the total, so many of this topic
            left = places - count
            options[:, count:, count] = best[:, :left] + values[:, topic, count : count + 1]
        best, choice = options.max(dim=2)
        choices.append(choice)
    counts = torch.zeros(sessions, topics, dtype=torch.int64, device=values.device)
    total = torch.full((sessions, 1), places - 1, dtype=torch.int64, device=values.device)
    for topic in range(topics - 1, -1, -1):
        taken = choices[topic].gather(1, total)
        counts[:, topic] = taken.squeeze(1)
        total = total - taken
    return counts
