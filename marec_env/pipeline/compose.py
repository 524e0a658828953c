"""From scores to a slate: diversity, exploration, and the exact probability of what was shown."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marec_env import random
from marec_env.compiled import compiled
from marec_env.pipeline.topk import sort_rows, top_k

__all__ = ["compose_slate", "rank_within_topic", "slate_log_propensity"]


def rank_within_topic(scores: Tensor, topics: Tensor) -> Tensor:
    """Return how many better candidates of its own topic each candidate has.

    Args:
        scores: float32 ``[B, C]``.
        topics: int64 ``[B, C]``.

    Returns:
        Int64 ``[B, C]``; ties count the earlier candidate as better.
    """
    if not scores.is_cpu:
        return _rank_by_runs(scores, topics)
    ordered = sort_rows(_descending(scores)).numpy()
    ranks = torch.empty(scores.shape, dtype=torch.int64)
    _count_earlier(ordered, topics.numpy(), int(topics.max()) + 1, ranks.numpy())
    return ranks


def _descending(scores: Tensor) -> Tensor:
    """Return int64 keys that ascend as scores fall, with the place in the low 16 bits."""
    raw = scores.contiguous().view(torch.int32)
    ascending = (raw ^ ((raw >> 31) & 0x7FFFFFFF)).to(torch.int64)  # orders as the scores do
    places = torch.arange(scores.shape[1], device=scores.device)
    return ((0x7FFFFFFF - ascending) << 16) | places


@compiled
def _count_earlier(
    ordered: NDArray[np.int64], topics: NDArray[np.int64], count: int, ranks: NDArray[np.int64]
) -> None:
    """Walk each row in order and count per topic what has come before."""
    before = np.empty(count, np.int64)
    for row in range(len(ordered)):
        before[:] = 0
        for key in ordered[row]:
            place = key & 0xFFFF
            topic = topics[row, place]
            ranks[row, place] = before[topic]
            before[topic] += 1


def _rank_by_runs(scores: Tensor, topics: Tensor) -> Tensor:
    """Return the same ranks in tensor operations: sort by topic too, and count from its start."""
    ordered = sort_rows((topics << 48) | _descending(scores))
    topic, place = ordered >> 48, ordered & 0xFFFF
    starts = torch.ones_like(topic, dtype=torch.bool)
    starts[:, 1:] = topic[:, 1:] != topic[:, :-1]
    places = torch.arange(scores.shape[1], device=scores.device)
    first = torch.where(starts, places, 0).cummax(1).values
    return torch.empty_like(topic).scatter_(1, place, places - first)


def slate_log_propensity(logits: Tensor, chosen: Tensor) -> Tensor:
    """Return the Plackett-Luce log-probability of an ordered choice.

    Args:
        logits: float32 ``[B, C]``.
        chosen: int64 ``[B, K]``, columns in order of choice.

    Returns:
        Float32 ``[B]``: sum over positions of the logit chosen less the log-sum-exp of what was
        still there.
    """
    picked = logits.gather(1, chosen)
    rest = logits.scatter(1, chosen, -torch.inf)
    # Going backwards, each position adds its own logit to the log-sum-exp of the rest.
    tail = torch.cat([picked, rest.logsumexp(1, keepdim=True)], dim=1).flip(1)
    remaining = tail.logcumsumexp(1)[:, 1:].flip(1)
    return (picked - remaining).sum(1)


def compose_slate(
    scores: Tensor,
    topics: Tensor,
    diversity: Tensor,
    temperature: Tensor,
    size: int,
    keys: Tensor,
    step: Tensor,
) -> tuple[Tensor, Tensor]:
    """Choose an ordered slate.

    Greedy selection with a penalty of ``diversity`` per item of the topic already chosen equals
    ranking by score less ``diversity`` times the rank within the topic: each topic's items are
    taken in score order, and the penalised scores fall along it. On these penalised scores the
    slate is drawn by Plackett-Luce at the given temperature (Gumbel top-k; Kool et al., ICML
    2019), so its probability is exact.

    Args:
        scores: float32 ``[B, C]``.
        topics: int64 ``[B, C]``.
        diversity: float32 ``[B]``, >= 0, in score units.
        temperature: float32 ``[B]``, > 0, in score units.
        size: K.
        keys, step: int64 ``[B]``, for the draws.

    Returns:
        The chosen columns, int64 ``[B, K]``, and the logits they were drawn by, float32 ``[B, C]``,
        of which :func:`slate_log_propensity` makes the slate's log-probability.
    """
    penalised = scores - diversity.unsqueeze(1) * rank_within_topic(scores, topics)
    logits = penalised / temperature.unsqueeze(1)
    noise = random.gumbel(keys, step, "pipeline/slate", scores.shape[1])
    chosen = top_k(logits + noise, size)
    return chosen, logits
