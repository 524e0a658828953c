"""Linear recommenders: item factors, an autoencoder and neighbours, learned from the log."""

from __future__ import annotations

import torch
from implicit.als import AlternatingLeastSquares
from implicit.bpr import BayesianPersonalizedRanking
from implicit.nearest_neighbours import ItemItemRecommender, normalize
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor
from torch.nn import functional

from agents.baselines.scoring import LikesPolicy, TrainingLog, sum_of_rows
from marec_env.memory import require_memory

NEIGHBOURS = 50  # of each item
_EASE_BYTES = 28  # a pair of items: two float64 matrices, what inverting needs, one float32


class ALS(LikesPolicy):
    """Alternating least squares for implicit feedback (Hu, Koren and Volinsky, ICDM 2008)."""

    name = "als"

    def __init__(
        self,
        log: TrainingLog,
        seed: int = 0,
        factors: int = 32,
        regularization: float = 1.0,
        confidence: float = 10.0,
    ) -> None:
        self.regularization, self.confidence = regularization, confidence
        model = AlternatingLeastSquares(
            factors=factors,
            regularization=regularization,
            alpha=confidence,
            iterations=15,
            random_state=seed,
            num_threads=1,
            use_gpu=False,
        )
        with threadpool_limits(1, "blas"):  # implicit's own threads and BLAS's fight for the cores
            model.fit(log.matrix(), show_progress=False)
        self.item_factors = torch.from_numpy(model.item_factors)
        self.gram = self.item_factors.T @ self.item_factors

    def user_vectors(self, liked: Tensor) -> Tensor:
        """Solve one half-step of ALS for each session.

        With Y the item factors, c the confidence: ``(Y'Y + (c - 1) Y_l'Y_l + reg I) u = c Y_l' 1``
        over the liked items ``l``, int64 ``[B, L]``, padded by -1; the same system as ``implicit``
        solves. Float32 ``[B, f]``.
        """
        factors = self.item_factors.to(liked.device)
        rows = factors[liked.clamp(min=0)] * (liked >= 0).unsqueeze(-1)
        ridge = self.regularization * torch.eye(factors.shape[1], device=liked.device)
        left = self.gram.to(liked.device) + ridge + (self.confidence - 1) * rows.mT @ rows
        right = self.confidence * rows.sum(dim=1)
        return torch.as_tensor(torch.linalg.solve(left, right))

    def scores_of(self, liked: Tensor) -> Tensor:
        """Return ``u . y`` for every item."""
        return self.user_vectors(liked) @ self.item_factors.to(liked.device).T


class BPR(LikesPolicy):
    """Bayesian personalised ranking (Rendle et al., UAI 2009)."""

    name = "bpr"
    fold_in_steps = 20
    fold_in_rate = 0.5
    regularization = 0.01

    def __init__(
        self, log: TrainingLog, seed: int = 0, factors: int = 32, iterations: int = 100
    ) -> None:
        model = BayesianPersonalizedRanking(
            factors=factors,
            learning_rate=0.05,
            regularization=self.regularization,
            iterations=iterations,
            random_state=seed,
            num_threads=1,  # one thread: several write the factors without locks, never twice alike
            use_gpu=False,
        )
        model.fit(log.matrix(), show_progress=False)
        table = torch.from_numpy(model.item_factors)
        self.item_factors, self.item_bias = table[:, :-1], table[:, -1]  # the last column is bias
        share = log.counts + 1
        self.centre = (share / share.sum()) @ self.item_factors

    def user_vectors(self, liked: Tensor) -> Tensor:
        """Ascend BPR's objective for each session with the item factors held.

        The rival of each liked item is the average item, weighted by popularity: its expectation
        over the rivals that training draws, which spares the draws. From likes, int64 ``[B, L]``,
        padded by -1, to float32 ``[B, f]``.
        """
        factors = self.item_factors.to(liked.device)
        present = (liked >= 0).to(torch.float32)
        count = present.sum(dim=1, keepdim=True).clamp(min=1)
        margin = factors[liked.clamp(min=0)] - self.centre.to(liked.device)
        margin = margin * present.unsqueeze(-1)
        user = torch.zeros(liked.shape[0], factors.shape[1], device=liked.device)
        for _ in range(self.fold_in_steps):
            push = torch.sigmoid(-torch.einsum("blf,bf->bl", margin, user)) * present
            gradient = torch.einsum("bl,blf->bf", push, margin) / count
            user = user + self.fold_in_rate * (gradient - self.regularization * user)
        return user

    def scores_of(self, liked: Tensor) -> Tensor:
        """Return ``u . y + bias`` for every item."""
        factors, bias = self.item_factors.to(liked.device), self.item_bias.to(liked.device)
        return functional.linear(self.user_vectors(liked), factors, bias)


class EASE(LikesPolicy):
    """The closed-form linear autoencoder with zero diagonal (Steck, WWW 2019)."""

    name = "ease"

    def __init__(self, log: TrainingLog, regularization: float = 200.0) -> None:
        count = log.num_items
        require_memory(
            f"baselines ease and hybrid on {count:,} items",
            _EASE_BYTES * count**2,
            "leave them out of evaluation.baselines, or take a log with fewer items",
        )
        matrix = log.matrix()
        gram = torch.from_numpy((matrix.T @ matrix).toarray()).to(torch.float64)
        gram.diagonal().add_(regularization)
        inverse = torch.linalg.inv(gram)
        weights = -inverse / inverse.diagonal()
        weights.fill_diagonal_(0)
        self.weights = weights.to(torch.float32)
        """Float32 ``[N, N]``: row the liked item, column the scored one."""
        self.popularity = log.popularity

    def scores_of(self, liked: Tensor) -> Tensor:
        """Return ``x B``; without any like, popularity decides."""
        present = (liked >= 0).to(torch.float32)
        return sum_of_rows(self.weights, liked, present) + 1e-6 * self.popularity.to(liked.device)


class ItemKNN(LikesPolicy):
    """Item-based neighbours (Sarwar et al., WWW 2001), found by ``implicit``: an item's score is
    its cosine similarity to what the user likes.
    """

    name = "item_knn"

    def __init__(self, log: TrainingLog, neighbours: int = NEIGHBOURS) -> None:
        model = ItemItemRecommender(K=min(neighbours + 1, log.num_items), num_threads=1)
        # As implicit's CosineRecommender, which hands itself another format and warns of it.
        model.fit(normalize(log.matrix().T).T.tocsr(), show_progress=False)
        similarity = model.similarity.tocsr()
        similarity.setdiag(0)
        similarity.eliminate_zeros()
        # One row of neighbours an item, so that a request is a gather and a scatter on any device.
        sizes = torch.from_numpy(similarity.indptr).to(torch.int64).diff()
        rows = torch.repeat_interleave(torch.arange(log.num_items), sizes)
        columns = torch.arange(rows.numel()) - (sizes.cumsum(0) - sizes)[rows]
        width = max(1, int(sizes.max()))
        self.neighbour_ids = torch.zeros(log.num_items, width, dtype=torch.int64)
        self.weights = torch.zeros(log.num_items, width)
        self.neighbour_ids[rows, columns] = torch.from_numpy(similarity.indices).to(torch.int64)
        self.weights[rows, columns] = torch.from_numpy(similarity.data).to(torch.float32)
        self.popularity = log.popularity

    def scores_of(self, liked: Tensor) -> Tensor:
        """Return summed similarities; without any, popularity decides."""
        device, places = liked.device, liked.clamp(min=0)
        weights = self.weights.to(device)[places] * (liked >= 0).unsqueeze(-1)
        # Far below any similarity: popularity orders only what neighbours leave equal.
        scores = 1e-6 * self.popularity.to(device).repeat(liked.shape[0], 1)
        return scores.scatter_add_(
            1, self.neighbour_ids.to(device)[places].flatten(1), weights.flatten(1)
        )
