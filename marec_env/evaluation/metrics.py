"""Ranking and list metrics, vectorised over sessions.

Conventions are those of trec_eval and ir-measures: cut-off at the list's length, NDCG with linear
gains, discount ``1 / log2(position + 2)`` and the ideal list cut at the same length; F1 per user,
then averaged. ``B`` users, ``K`` positions, ``N`` items; a position of -1 is empty. Two rules hold
for every metric that is taken against what is relevant:

* An item counts once, at its first place; a repeat is as good as an irrelevant item.
* A user with nothing relevant has no value: it is NaN, and means leave it out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from marec_env.errors import ConfigError

__all__ = [
    "against_relevance",
    "cold_items",
    "coverage",
    "intra_list_diversity",
    "miscalibration",
    "novelty",
    "popularity_bands",
]

POPULARITY_BANDS = 5
COLD_AT_MOST = 1  # interactions that tell who likes an item no better than none
CALIBRATION_SMOOTHING = 0.01  # alpha of Steck, "Calibrated Recommendations", RecSys 2018


def against_relevance(
    slate: Tensor, relevance: Tensor, expected: Tensor, gains_of_all: Tensor | None = None
) -> dict[str, Tensor]:
    """Return every metric that is taken against what is relevant, float32 ``[B]`` each.

    * ``precision``: share of the ``K`` positions that hold a relevant item; ``recall``: share of
      the relevant items in the list; ``f1``: their harmonic mean for each user.
    * ``hit_rate``: 1 where at least one item is relevant; ``mrr``: 1 / the position of the first
      relevant item, 0 if there is none.
    * ``ndcg``: discounted gain over that of the best possible list of ``K``.
    * ``serendipity``: share of positions whose item is relevant and unexpected; what a primitive
      recommender would have shown anyway is no surprise (Ge, Delgado-Battenfeld and Jannach,
      RecSys 2010).

    Args:
        slate: int64 ``[B, K]``.
        relevance: ``[B, N]``, bool or a non-negative gain.
        expected: int64 ``[B, M]``, the primitive recommender's list (the most popular items).
        gains_of_all: ``[B, R]``, all that is not 0 in ``relevance``, at any place and with any
            zeros; without it the whole of ``relevance`` is read.

    Raises:
        ConfigError: the lists have no positions, or hold items outside ``0 ... N - 1``.
    """
    gains = _gains(slate, relevance)
    hits, size = gains > 0, slate.shape[1]
    found = hits.float().sum(dim=1)
    of_all = relevance if gains_of_all is None else gains_of_all
    count = (of_all > 0).sum(dim=1).to(torch.float32)
    positions = torch.arange(1, size + 1, device=slate.device)
    discount = 1 / torch.log2((positions + 1).float())
    best = of_all.to(torch.float32).topk(min(size, of_all.shape[1]), dim=1).values
    ideal = (best * discount[: best.shape[1]]).sum(dim=1)
    surprising = ~(slate.unsqueeze(2) == expected.unsqueeze(1)).any(dim=2)
    values = {
        "precision": hits.float().mean(dim=1),
        "recall": found / count,
        "f1": 2 * found / (size + count),
        "ndcg": (gains * discount).sum(dim=1) / ideal,
        "mrr": (hits / positions).amax(dim=1),
        "hit_rate": hits.any(dim=1).float(),
        "serendipity": (hits & surprising).float().mean(dim=1),
    }
    return {name: torch.where(count > 0, value, torch.nan) for name, value in values.items()}


def coverage(impressions: Tensor) -> float:
    """Return the share of the catalog shown to anybody, from ``[N]`` impressions of each item."""
    return float((impressions > 0).float().mean())


def intra_list_diversity(slate: Tensor, features: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the mean cosine distance over the pairs of a list, ``[B]``; NaN below two items.

    Args:
        slate: int64 ``[B, K]``.
        features: from items to their vectors, int64 ``[B, K]`` to float32 ``[B, K, d]``.
    """
    present = (slate >= 0).float()
    unit = torch.nn.functional.normalize(features(slate.clamp(min=0)), dim=2)
    vectors = unit * present.unsqueeze(-1)
    count = present.sum(dim=1)
    total = vectors.sum(dim=1).square().sum(dim=1) - vectors.square().sum(dim=(1, 2))
    pairs = count * (count - 1)
    return 1 - total / torch.where(pairs > 0, pairs, torch.nan)


def novelty(slate: Tensor, counts: Tensor) -> Tensor:
    """Return the mean self-information of a list's items in bits, ``[B]``.

    Zhou et al., PNAS 107 (2010): ``-log2`` of the item's share of the log's interactions; an item
    without any counts as one with a single interaction.

    Args:
        slate: int64 ``[B, K]``.
        counts: float32 ``[N]``, interactions of each item in the log.
    """
    present = slate >= 0
    count = counts[slate.clamp(min=0)].clamp(min=1)
    information = -torch.log2(count / counts.sum().clamp(min=1))
    total = (information * present).sum(dim=1)
    return total / torch.where(present.any(dim=1), present.sum(dim=1), torch.nan)


def popularity_bands(counts: Tensor, bands: int = POPULARITY_BANDS) -> Tensor:
    """Return the band of each item, from the least (0) to the most consumed, int64 ``[N]``.

    Bands hold equally many items, give or take one; equal counts are split in catalog order.

    Args:
        counts: ``[N]``, interactions of each item in the log.
        bands: how many.
    """
    ranks = torch.empty_like(counts, dtype=torch.int64)
    ranks[counts.sort(stable=True).indices] = torch.arange(counts.numel(), device=counts.device)
    return ranks * bands // max(counts.numel(), 1)


def cold_items(counts: Tensor) -> Tensor:
    """Return 1 for each item of which at most one interaction is known and 0 for others, int64
    ``[N]``. ``counts``: ``[N]``, interactions of each item in the log.
    """
    return (counts <= COLD_AT_MOST).to(torch.int64)


def miscalibration(slate: Tensor, history: Tensor, topics: Tensor, num_topics: int) -> Tensor:
    """Return how far a list's topics are from the user's, Kullback-Leibler in nats, ``[B]``.

    Steck, RecSys 2018: ``KL(p || (1 - a) q + a p)`` with ``p`` the topic shares of the history,
    ``q`` those of the list and ``a`` = 0.01; 0 is perfectly calibrated; NaN without a history.

    Args:
        slate: int64 ``[B, K]``.
        history: int64 ``[B, H]``, padded with -1.
        topics: int64 ``[N]``.
        num_topics: T.
    """
    target = _topic_shares(history, topics, num_topics)
    shown = _topic_shares(slate, topics, num_topics).nan_to_num(0.0)
    smoothed = (1 - CALIBRATION_SMOOTHING) * shown + CALIBRATION_SMOOTHING * target
    return torch.where(target == 0, 0.0, target * (target / smoothed).log()).sum(dim=1)


def _gains(slate: Tensor, relevance: Tensor) -> Tensor:
    """Return the gain at each position, float32 ``[B, K]``; 0 where empty or a repeat."""
    if slate.ndim != 2 or slate.shape[1] == 0:
        raise ConfigError(
            f"lists of shape {tuple(slate.shape)} have no metric; needed: [B, K], K > 0"
        )
    last = int(slate.max()) if slate.numel() else -1
    if last >= relevance.shape[1]:
        raise ConfigError(f"a list holds item {last} of {relevance.shape[1]}")
    repeat = (slate.unsqueeze(2) == slate.unsqueeze(1)).tril(-1).any(dim=2)
    gains = relevance.gather(1, slate.clamp(min=0)).to(torch.float32)
    return gains * ((slate >= 0) & ~repeat)


def _topic_shares(items: Tensor, topics: Tensor, num_topics: int) -> Tensor:
    """Return the share of each topic among ``[B, L]`` items, ``[B, T]``; NaN if all are -1."""
    present = (items >= 0).to(torch.float32)
    counts = torch.zeros(items.shape[0], num_topics, device=items.device)
    counts.scatter_add_(1, topics[items.clamp(min=0)], present)
    total = present.sum(dim=1, keepdim=True)
    return counts / torch.where(total > 0, total, torch.nan)
