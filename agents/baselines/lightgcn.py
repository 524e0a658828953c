"""LightGCN (He et al., SIGIR 2020): embeddings smoothed over the graph of likes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from agents.baselines.scoring import ScoringPolicy, liked_items
from agents.baselines.training_log import TrainingLog
from marec_env.evaluation.policies import RecommenderView

__all__ = ["LightGCN"]

HISTORY = 200  # latest likes that count


class LightGCN(ScoringPolicy):
    """Trained with BPR; a session's user is folded in as a new node of the graph.

    The new node has no embedding of its own (layer 0 is zero); its layer ``k`` is the normalised
    sum of layer ``k - 1`` over the items it is joined to, by the model's own rule.
    """

    name = "lightgcn"

    def __init__(
        self,
        log: TrainingLog,
        seed: int = 0,
        dim: int = 48,
        layers: int = 2,
        epochs: int = 60,
        batch: int = 8192,
        learning_rate: float = 1e-2,
        weight_decay: float = 1e-4,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.layers = layers
        graph = _graph(log)
        count = log.num_users + log.num_items
        base = (0.1 * torch.randn(count, dim, generator=generator)).requires_grad_()
        optimizer = torch.optim.Adam([base], lr=learning_rate)
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(log.item.numel(), generator=generator), batch):
                user, item = log.user[rows], log.item[rows]
                rival = torch.randint(log.num_items, (rows.numel(),), generator=generator)
                table = torch.stack(_propagate(graph, base, layers)).mean(dim=0)
                users, items = torch.split(table, [log.num_users, log.num_items])
                margin = (users[user] * (items[item] - items[rival])).sum(dim=1)
                own = base[user], base[log.num_users + item], base[log.num_users + rival]
                penalty = sum(part.square().sum() for part in own) / (2 * rows.numel())
                loss = functional.softplus(-margin).mean() + weight_decay * penalty
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
        with torch.no_grad():
            by_layer = torch.stack(_propagate(graph, base, layers))[:, log.num_users :]
        self.items = by_layer.mean(dim=0)
        """Float32 ``[N, d]``: final item embeddings."""
        degree = log.counts.clamp(min=1)
        # What one edge to an item adds to a new node's mean over layers 0 ... k, before the new
        # node's own degree: layers 0 ... k - 1 of the item over the root of its degree.
        self.messages = by_layer[:-1].sum(dim=0) / (layers + 1) / degree.sqrt().unsqueeze(1)

    def scores(self, view: RecommenderView) -> Tensor:
        """Return ``u . y`` for every item."""
        liked = liked_items(view, HISTORY)
        present = (liked >= 0).to(torch.float32)
        weights = present / present.sum(dim=1, keepdim=True).clamp(min=1).sqrt()
        users = functional.embedding_bag(
            liked.clamp(min=0),
            self.messages.to(liked.device),
            per_sample_weights=weights,
            mode="sum",
        )
        # A user without likes has a zero vector: the mean user's order is used, at a small scale.
        default = self.messages.mean(dim=0).to(liked.device)
        return (users + 1e-6 * default) @ self.items.to(liked.device).T


def _graph(log: TrainingLog) -> Tensor:
    """Return the symmetrically normalised adjacency of users and items, sparse ``[U+N, U+N]``."""
    matrix = log.matrix().tocoo()
    user = torch.from_numpy(matrix.row).to(torch.int64)
    item = torch.from_numpy(matrix.col).to(torch.int64) + log.num_users
    count = log.num_users + log.num_items
    degree = torch.bincount(torch.cat([user, item]), minlength=count).clamp(min=1).float()
    value = (degree[user] * degree[item]).rsqrt()
    places = torch.stack([torch.cat([user, item]), torch.cat([item, user])])
    return torch.sparse_coo_tensor(
        places, torch.cat([value, value]), (count, count), check_invariants=False
    ).coalesce()


def _propagate(graph: Tensor, base: Tensor, layers: int) -> list[Tensor]:
    """Return the embeddings of layers ``0 ... layers``, ``[U+N, d]`` each."""
    found = [base]
    for _ in range(layers):
        found.append(torch.sparse.mm(graph, found[-1]))
    return found
