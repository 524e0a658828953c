"""What the recommender may learn from: a configurable, possibly biased share of the log."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from marec_env import random
from marec_env.compiled import compiled
from marec_env.config import ConfigModel, Seed
from marec_env.data.factors import Factors, fit_factors
from marec_env.data.interactions import InteractionLog
from marec_env.errors import DataError
from marec_env.privacy.federated import FederatedConfig, FederatedReport, fit_federated

_BLOCK = 1 << 22  # cells of a dense block of item-item similarities
_DENSE_ITEMS = 20_000  # beyond which neighbours are found by way of users
_MOST_ITEMS = 2_000  # of a user who counts there: the work grows with their square
_ITEM_BLOCK = 1 << 14  # items that a thread finds the neighbours of at a time


class KnowledgeConfig(ConfigModel):
    """The share of the log the recommender sees, and what it fits on it."""

    user_share: float = Field(default=1.0, gt=0.0, le=1.0, description="share of users it has met")
    interaction_share: float = Field(
        default=1.0, gt=0.0, le=1.0, description="share of those users' interactions it has"
    )
    popularity_exponent: float = Field(
        default=0.0,
        ge=0.0,
        le=5.0,
        description="bias of the interactions kept: odds grow as (item's count / largest count) "
        "to this power; 0: none",
    )
    dim: int = Field(
        default=32, ge=1, le=512, description="dimensions of the collaborative factors"
    )
    ridge: float = Field(default=30.0, gt=0.0, description="ridge term of the factors")
    sweeps: int = Field(default=10, ge=1, le=200, description="alternations of the factor fit")
    neighbours: int = Field(default=50, ge=1, le=10_000, description="similar items kept per item")
    federated: FederatedConfig | None = Field(
        default=None,
        description="null: factors are fitted on all interactions at once; else over shards of the "
        "users, in rounds, which replaces sweeps",
    )
    seed: Seed = Field(default=1, description="of the selection and the fit; not the population's")


@dataclass(frozen=True, slots=True)
class LearnedSpace:
    """What the recommender has learned before the first request."""

    factors: Factors
    """Implicit-feedback factors; a user it has not met has the zero vector."""
    neighbours: Tensor
    """Int64 ``[N, M]``, the most similar items, best first; -1 where there are fewer."""
    similarity: Tensor
    """Float32 ``[N, M]``, their cosine; 0 where there is none."""
    popularity: Tensor
    """Float32 ``[N]`` in [0, 1]: share of the visible users who consumed it, over the largest."""
    known_users: Tensor
    """Bool ``[U]``: whether the visible log has the user."""
    federated: FederatedReport | None = None
    """What learning over shards cost, if that is how the factors were learned."""


def select_log(log: InteractionLog, config: KnowledgeConfig) -> InteractionLog:
    """Return the visible share of the log; users and items keep their positions.

    An interaction of a visible user is kept with probability ``min(1, c · (n_i / max n)^e)``,
    c set so that the expected share is ``interaction_share`` (all are kept if that is 1).

    Raises:
        DataError: nothing is left.
    """
    users = random.uniform(
        random.session_keys(config.seed, torch.arange(log.num_users)), 0, "data/visible_user", 1
    ).squeeze(-1)
    # The users with the smallest draws, so that the share is exact and grows monotonically.
    visible = torch.zeros(log.num_users, dtype=torch.bool)
    number = max(1, round(config.user_share * log.num_users))
    visible[torch.argsort(users, stable=True)[:number]] = True
    keep = visible[log.user]
    if config.interaction_share < 1.0:
        probability = _keep_probability(log, config)
        rows = random.session_keys(config.seed, torch.arange(log.num_interactions))
        keep &= random.uniform(rows, 0, "data/visible_row", 1).squeeze(-1) < probability
    if not bool(keep.any()):
        raise DataError("knowledge: no interaction is visible; raise its shares")
    if bool(keep.all()):  # no copy of a large log
        return replace(log, impressions=None)
    return log.select(keep)


def _keep_probability(log: InteractionLog, config: KnowledgeConfig) -> Tensor:
    count = torch.bincount(log.item, minlength=log.num_items).to(torch.float64)
    odds = ((count / count.max()) ** config.popularity_exponent)[log.item]
    # c by fixed-point steps: those that reach 1 are kept for sure, the others share what is left.
    low, high = 0.0, 1.0 / float(odds.min())
    for _ in range(60):
        middle = (low + high) / 2
        if float((middle * odds).clamp(max=1.0).mean()) < config.interaction_share:
            low = middle
        else:
            high = middle
    return (high * odds).clamp(max=1.0).float()


def item_neighbours(log: InteractionLog, number: int) -> tuple[Tensor, Tensor]:
    """Return each item's most similar items by the cosine of their sets of users.

    Args:
        log: interactions; all count, liked or not.
        number: M, at most ``N - 1`` are found.

    Returns:
        Int64 ``[N, M]`` items (-1: fewer with positive similarity) and float32 ``[N, M]`` cosines.
    """
    cells = torch.unique(log.item * log.num_users + log.user)
    item, user = cells // log.num_users, cells % log.num_users
    if log.num_items > _DENSE_ITEMS:
        return _neighbours_by_user(item, user, log, number)
    norm = torch.bincount(item, minlength=log.num_items).to(torch.float32).sqrt()
    size = (log.num_items, log.num_users)
    by_item = torch.sparse_coo_tensor(
        torch.stack([item, user]), 1.0 / norm[item], size, is_coalesced=True, check_invariants=True
    )
    width = min(number, log.num_items - 1)
    neighbours = torch.full((log.num_items, number), -1, dtype=torch.int64)
    similarity = torch.zeros(log.num_items, number)
    start = torch.searchsorted(item, torch.arange(log.num_items + 1))
    rows = max(1, _BLOCK // log.num_items)
    for first in range(0, log.num_items, rows):
        last = min(first + rows, log.num_items)
        part = slice(int(start[first]), int(start[last]))
        dense = torch.zeros(log.num_users, last - first)
        dense[user[part], item[part] - first] = 1.0 / norm[item[part]]
        cosine = torch.sparse.mm(by_item, dense).T  # [rows, N]
        cosine[torch.arange(last - first), torch.arange(first, last)] = -1.0
        value, index = torch.topk(cosine, width, dim=1)
        found = value > 0
        neighbours[first:last, :width] = index.where(found, -1)
        similarity[first:last, :width] = value.where(found, 0.0)
    return neighbours, similarity


def _neighbours_by_user(
    item: Tensor, user: Tensor, log: InteractionLog, number: int
) -> tuple[Tensor, Tensor]:
    """Return the same by way of each item's users and what these consumed: no item meets those with
    which it shares nobody. Users of more than :data:`_MOST_ITEMS` items are left out of the sums.

    Args:
        item, user: int64 ``[P]``, distinct pairs, by item, then user.
        log: of how many users and items.
        number: M.
    """
    norm = torch.bincount(item, minlength=log.num_items).to(torch.float32).sqrt()
    by_user = torch.argsort(user, stable=True)
    of_item = torch.searchsorted(item, torch.arange(log.num_items + 1)).numpy()
    of_user = torch.searchsorted(user[by_user], torch.arange(log.num_users + 1)).numpy()
    users, items = user.numpy(), item[by_user].numpy()
    neighbours = torch.full((log.num_items, number), -1, dtype=torch.int64)
    similarity = torch.zeros(log.num_items, number)
    given = (users, of_item, items, of_user, norm.numpy())
    blocks = range(0, log.num_items, _ITEM_BLOCK)

    def find(first: int) -> None:
        last = min(first + _ITEM_BLOCK, log.num_items)
        _find_neighbours(first, last, *given, neighbours.numpy(), similarity.numpy())

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        list(threads.map(find, blocks))
    return neighbours, similarity


@compiled
def _find_neighbours(
    first: int,
    last: int,
    users: NDArray[np.int64],
    item_start: NDArray[np.int64],
    items: NDArray[np.int64],
    user_start: NDArray[np.int64],
    norm: NDArray[np.float32],
    neighbours: NDArray[np.int64],
    similarity: NDArray[np.float32],
) -> None:
    """Fill rows ``first`` to ``last``; of equal cosines the lower item comes first."""
    shared = np.zeros(len(norm), np.int32)
    met = np.empty(len(norm), np.int32)
    width = neighbours.shape[1]
    for own in range(first, last):
        count = 0
        for place in range(item_start[own], item_start[own + 1]):
            begin, end = user_start[users[place]], user_start[users[place] + 1]
            if end - begin > _MOST_ITEMS:
                continue
            for other in items[begin:end]:
                if shared[other] == 0:
                    met[count] = other
                    count += 1
                shared[other] += 1
        for other in met[:count]:
            cosine = np.float32(shared[other] / (norm[own] * norm[other]))
            shared[other] = 0
            if other == own:
                continue
            slot = width
            while slot > 0 and (
                similarity[own, slot - 1] < cosine
                or (similarity[own, slot - 1] == cosine and neighbours[own, slot - 1] > other)
            ):
                slot -= 1
            if slot < width:
                for later in range(width - 1, slot, -1):
                    neighbours[own, later] = neighbours[own, later - 1]
                    similarity[own, later] = similarity[own, later - 1]
                neighbours[own, slot] = other
                similarity[own, slot] = cosine


def directions(factors: Tensor) -> Tensor:
    """Return item factors ``[N, d]`` as unit vectors about their mean.

    What all items share is popularity; left in, it drowns what sets tastes apart. Items without
    interactions (zero rows) have no direction and stay zero.
    """
    known = factors.norm(dim=1, keepdim=True) > 0
    mean = factors.sum(0) / known.sum().clamp(min=1)
    return torch.nn.functional.normalize(torch.where(known, factors - mean, 0.0), dim=1)


def learn(visible: InteractionLog, config: KnowledgeConfig) -> LearnedSpace:
    """Fit the recommender's factors and neighbours on the log of :func:`select_log`."""
    report = None
    if config.federated is not None:
        factors, report = fit_federated(
            visible, config.dim, config.federated, ridge=config.ridge, seed=config.seed
        )
    else:
        factors = fit_factors(
            visible,
            config.dim,
            model="implicit",
            sweeps=config.sweeps,
            ridge=config.ridge,
            seed=config.seed,
        )
    neighbours, similarity = item_neighbours(visible, config.neighbours)
    return LearnedSpace(
        factors=factors,
        neighbours=neighbours,
        similarity=similarity,
        popularity=popularity(visible),
        known_users=torch.bincount(visible.user, minlength=visible.num_users) > 0,
        federated=report,
    )


def popularity(log: InteractionLog) -> Tensor:
    """Return the number of users who consumed each item over the largest, float32 ``[N]``."""
    pairs = torch.unique(log.item * log.num_users + log.user)
    count = torch.bincount(pairs // log.num_users, minlength=log.num_items).to(torch.float32)
    return count / count.max().clamp_min(1.0)
