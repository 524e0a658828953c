"""Neural matrix factorisation (He et al., "Neural Collaborative Filtering", WWW 2017).

Departure from the paper, so that new users and new clicks count without retraining: a user's two
vectors are the means of learned vectors of the items they like (as in FISM, Kabbur et al., KDD
2013) rather than rows of a user table. While training on one like, it is left out of its own user.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.baselines.scoring import ScoringPolicy, liked_items
from agents.baselines.training_log import TrainingLog
from marec_env.evaluation.policies import RecommenderView

__all__ = ["NeuMF", "NeuMFNetwork"]

HISTORY = 100  # latest likes that count
CHUNK = 1 << 20  # pairs of user and item scored at once


class NeuMFNetwork(nn.Module):
    """The two towers: a product of factors, and a perceptron over concatenated vectors."""

    def __init__(self, num_items: int, factors: int = 32, hidden: int = 64) -> None:
        super().__init__()
        self.product_user = nn.Embedding(num_items, factors)
        self.product_item = nn.Embedding(num_items, factors)
        self.deep_user = nn.Embedding(num_items, factors)
        self.deep_item = nn.Embedding(num_items, factors)
        self.user_layer = nn.Linear(factors, hidden)
        self.item_layer = nn.Linear(factors, hidden, bias=False)
        self.middle = nn.Linear(hidden, hidden // 2)
        self.out = nn.Linear(factors + hidden // 2, 1)
        self.bias = nn.Embedding(num_items, 1)
        for table in (self.product_user, self.product_item, self.deep_user, self.deep_item):
            nn.init.normal_(table.weight, std=0.1)
        nn.init.zeros_(self.bias.weight)

    def users(self, liked: Tensor, without: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the users' two vectors, ``[B, f]`` each.

        Args:
            liked: int64 ``[B, L]``, padded by -1.
            without: int64 ``[B]``, an item of each user to leave out.
        """
        present = liked >= 0
        if without is not None:
            present = present & (liked != without.unsqueeze(1))
        weights = present.to(torch.float32) / present.sum(dim=1, keepdim=True).clamp(min=1)
        places = liked.clamp(min=0)
        product, deep = (
            functional.embedding_bag(places, t.weight, per_sample_weights=weights, mode="sum")
            for t in (self.product_user, self.deep_user)
        )
        return product, deep

    def forward(self, users: tuple[Tensor, Tensor], items: Tensor) -> Tensor:
        """Return logits ``[B, M]`` of int64 ``[B, M]`` items (or ``[M]``, the same for all)."""
        product, deep = users
        # The first layer on a concatenation is a sum of two layers: computed once a user and item.
        hidden = self.user_layer(deep).unsqueeze(1) + self.item_layer(self.deep_item(items))
        hidden = functional.relu(self.middle(functional.relu(hidden)))
        joint = product.unsqueeze(1) * self.product_item(items)
        logits = self.out(torch.cat([joint.expand(*hidden.shape[:2], -1), hidden], dim=-1))
        return torch.as_tensor((logits + self.bias(items)).squeeze(-1))


class NeuMF(ScoringPolicy):
    """NeuMF trained with sampled negatives by cross-entropy."""

    name = "neumf"

    def __init__(
        self,
        log: TrainingLog,
        seed: int = 0,
        epochs: int = 20,
        negatives: int = 4,
        batch: int = 1024,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-5,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = NeuMFNetwork(log.num_items)
        sequences = log.sequences(HISTORY)
        optimizer = torch.optim.Adam(
            self.network.parameters(), lr=learning_rate, weight_decay=weight_decay
        )
        target = torch.zeros(1 + negatives)
        target[0] = 1.0
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(log.item.numel(), generator=generator), batch):
                positive = log.item[rows]
                rivals = torch.randint(
                    log.num_items, (rows.numel(), negatives), generator=generator
                )
                items = torch.cat([positive.unsqueeze(1), rivals], dim=1)
                users = self.network.users(sequences[log.user[rows]], without=positive)
                logits = self.network(users, items)
                loss = functional.binary_cross_entropy_with_logits(logits, target.expand_as(logits))
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
        self.network.eval()

    @torch.no_grad()
    def scores(self, view: RecommenderView) -> Tensor:
        """Return logits of every item, computed in chunks of sessions."""
        liked = liked_items(view, HISTORY)
        self.network.to(liked.device)
        count = view.seen.shape[1]
        items = torch.arange(count, device=liked.device).unsqueeze(0)
        return torch.cat(
            [
                self.network(self.network.users(part), items)
                for part in torch.split(liked, max(1, CHUNK // count))
            ]
        )
