"""Neural recommenders, trained from the log by gradient descent; clicks count at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.baselines.scoring import LikesPolicy, TrainingLog, sum_of_rows
from marec_env.memory import require_memory

_NEGATIVES = 4  # items drawn against each like
_CHUNK = 1 << 20  # pairs of user and item scored at once
_LOGIT_BYTES = 12  # a logit, its exponential and its gradient


def _descend(
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[Tensor], Tensor],
    count: int,
    epochs: int,
    batch: int,
    generator: torch.Generator,
) -> None:
    """Minimise the loss of batches of ``count`` rows, int64 ``[b]`` positions each."""
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(count, generator=generator), batch):
            optimizer.zero_grad()
            torch.autograd.backward(loss_of(rows))
            optimizer.step()


class NeuMFNetwork(nn.Module):
    """The two towers: a product of factors, and a perceptron over concatenated vectors.

    Departure from the paper, so that new users and new clicks count without retraining: a user's
    two vectors are the means of learned vectors of the items they like (as in FISM, Kabbur et al.,
    KDD 2013) rather than rows of a user table. While training on one like, it is left out of its
    own user.
    """

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
        """Return the users' two vectors, ``[B, f]`` each, from int64 ``[B, L]`` liked items, padded
        by -1, but for one int64 ``[B]`` each to go ``without``.
        """
        present = liked >= 0
        if without is not None:
            present = present & (liked != without.unsqueeze(1))
        weights = present.to(torch.float32) / present.sum(dim=1, keepdim=True).clamp(min=1)
        product = sum_of_rows(self.product_user.weight, liked, weights)
        return product, sum_of_rows(self.deep_user.weight, liked, weights)

    def forward(self, users: tuple[Tensor, Tensor], items: Tensor) -> Tensor:
        """Return logits ``[B, M]`` of int64 ``[B, M]`` items (or ``[M]``, the same for all)."""
        product, deep = users
        # The first layer on a concatenation is a sum of two layers: computed once a user and item.
        hidden = self.user_layer(deep).unsqueeze(1) + self.item_layer(self.deep_item(items))
        hidden = functional.relu(self.middle(functional.relu(hidden)))
        joint = product.unsqueeze(1) * self.product_item(items)
        logits = self.out(torch.cat([joint.expand(*hidden.shape[:2], -1), hidden], dim=-1))
        return torch.as_tensor((logits + self.bias(items)).squeeze(-1))


class NeuMF(LikesPolicy):
    """Neural matrix factorisation (He et al., WWW 2017): sampled negatives, cross-entropy."""

    name = "neumf"
    latest = 100

    @torch.inference_mode(False)
    @torch.enable_grad()
    def __init__(
        self,
        log: TrainingLog,
        seed: int = 0,
        epochs: int = 20,
        batch: int = 1024,
        learning_rate: float = 2e-3,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = NeuMFNetwork(log.num_items)
        sequences = log.sequences(self.latest)
        target = torch.tensor([1.0] + [0.0] * _NEGATIVES)

        def loss_of(rows: Tensor) -> Tensor:
            positive = log.item[rows]
            rivals = torch.randint(log.num_items, (rows.numel(), _NEGATIVES), generator=generator)
            items = torch.cat([positive.unsqueeze(1), rivals], dim=1)
            users = self.network.users(sequences[log.user[rows]], without=positive)
            logits = self.network(users, items)
            return functional.binary_cross_entropy_with_logits(logits, target.expand_as(logits))

        optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate, weight_decay=1e-5)
        _descend(optimizer, loss_of, log.item.numel(), epochs, batch, generator)
        self.network.eval()

    @torch.no_grad()
    def scores_of(self, liked: Tensor) -> Tensor:
        """Return logits of every item, computed in chunks of sessions."""
        network = self.network.to(liked.device)
        count = network.bias.num_embeddings
        items = torch.arange(count, device=liked.device).unsqueeze(0)
        parts = torch.split(liked, max(1, _CHUNK // count))
        return torch.cat([network(network.users(part), items) for part in parts])


class LightGCN(LikesPolicy):
    """Embeddings smoothed over the graph of likes (He et al., SIGIR 2020), trained with BPR.

    A session's user is folded in as a new node of the graph. It has no embedding of its own (layer
    0 is zero); its layer ``k`` is the normalised sum of layer ``k - 1`` over the items it is joined
    to, by the model's own rule.
    """

    name = "lightgcn"

    @torch.inference_mode(False)
    @torch.enable_grad()
    def __init__(
        self,
        log: TrainingLog,
        seed: int = 0,
        dim: int = 48,
        layers: int = 2,
        epochs: int = 60,
        batch: int = 8192,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        graph = _graph(log)
        count = log.num_users + log.num_items
        base = (0.1 * torch.randn(count, dim, generator=generator)).requires_grad_()
        optimizer = torch.optim.Adam([base], lr=1e-2)

        def loss_of(rows: Tensor) -> Tensor:
            user, item = log.user[rows], log.item[rows]
            rival = torch.randint(log.num_items, (rows.numel(),), generator=generator)
            table = torch.stack(_propagate(graph, base, layers)).mean(dim=0)
            users, items = torch.split(table, [log.num_users, log.num_items])
            margin = (users[user] * (items[item] - items[rival])).sum(dim=1)
            own = base[user], base[log.num_users + item], base[log.num_users + rival]
            penalty = sum(part.square().sum() for part in own) / (2 * rows.numel())
            return functional.softplus(-margin).mean() + 1e-4 * penalty

        _descend(optimizer, loss_of, log.item.numel(), epochs, batch, generator)
        with torch.no_grad():
            by_layer = torch.stack(_propagate(graph, base, layers))[:, log.num_users :]
        self.items = by_layer.mean(dim=0)
        """Float32 ``[N, d]``: final item embeddings."""
        degree = log.counts.clamp(min=1)
        # What one edge to an item adds to a new node's mean over layers 0 ... k, before the new
        # node's own degree: layers 0 ... k - 1 of the item over the root of its degree.
        self.messages = by_layer[:-1].sum(dim=0) / (layers + 1) / degree.sqrt().unsqueeze(1)

    def scores_of(self, liked: Tensor) -> Tensor:
        """Return ``u . y`` for every item."""
        present = (liked >= 0).to(torch.float32)
        weights = present / present.sum(dim=1, keepdim=True).clamp(min=1).sqrt()
        users = sum_of_rows(self.messages, liked, weights)
        # A user without likes has a zero vector: the mean user's order is used, at a small scale.
        default = self.messages.mean(dim=0).to(liked.device)
        return (users + 1e-6 * default) @ self.items.to(liked.device).T


def _graph(log: TrainingLog) -> Tensor:
    """Return the symmetrically normalised adjacency of users and items, sparse ``[U+N, U+N]``."""
    user, item = torch.from_numpy(np.stack(log.matrix().nonzero())).to(torch.int64)
    item = item + log.num_users
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


class SASRecNetwork(nn.Module):
    """Item and position embeddings, pre-norm transformer blocks, tied output weights."""

    def __init__(self, num_items: int, length: int, dim: int, dropout: float = 0.3) -> None:
        super().__init__()
        blocks, heads = 2, 2
        self.heads = heads
        self.items = nn.Embedding(num_items + 1, dim)  # the last row is the start of a sequence
        self.positions = nn.Embedding(length, dim)
        layer = nn.TransformerEncoderLayer(
            dim, heads, 2 * dim, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, blocks, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.bias = nn.Parameter(torch.zeros(num_items))
        nn.init.normal_(self.items.weight, std=dim**-0.5)
        nn.init.normal_(self.positions.weight, std=dim**-0.5)

    def states(self, sequences: Tensor) -> Tensor:
        """Return ``[B, L, d]`` summaries of each prefix of int64 ``[B, L]``, front-padded by -1.

        An item attends to itself and the items before it. Padding reads as the start of a sequence
        and attends to itself alone, so that a row's result does not depend on its padding.
        """
        length = sequences.shape[1]
        device = sequences.device
        present = sequences >= 0
        places = torch.where(present, sequences, self.items.num_embeddings - 1)
        recency = torch.arange(length - 1, -1, -1, device=device)
        hidden = self.items(places) + self.positions(recency) * present.unsqueeze(-1)
        own = torch.eye(length, dtype=torch.bool, device=device)
        earlier = torch.ones_like(own).tril()
        allowed = own | (earlier & present.unsqueeze(1))
        blocked = (~allowed).repeat_interleave(self.heads, dim=0)
        hidden = self.blocks(self.dropout(hidden), mask=blocked)
        return torch.as_tensor(self.norm(hidden))

    def logits(self, states: Tensor) -> Tensor:
        """Return the next item's logits after each summary, ``[..., N]``."""
        return functional.linear(states, self.items.weight[:-1], self.bias)


class SASRec(LikesPolicy):
    """Causal self-attention over the sequence of likes, this session's clicks included (Kang and
    McAuley, ICDM 2018).

    Trained with full cross-entropy over the catalog instead of one sampled negative, which is what
    makes it strong (Klenitskiy and Vasilev, RecSys 2023).
    """

    name = "sasrec"

    @torch.inference_mode(False)
    @torch.enable_grad()
    def __init__(
        self,
        log: TrainingLog,
        seed: int = 0,
        length: int = 50,
        dim: int = 48,
        epochs: int = 30,
        batch: int = 64,
        learning_rate: float = 1e-3,
    ) -> None:
        self.latest = length
        require_memory(
            f"baseline sasrec on {log.num_items:,} items",
            _LOGIT_BYTES * batch * length * log.num_items,
            "leave it out of evaluation.baselines, or take a log with fewer items",
        )
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = SASRecNetwork(log.num_items, length, dim)
            optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate)
            chunks = _chunks(log, length + 1)

            def loss_of(rows: Tensor) -> Tensor:
                inputs, targets = chunks[rows, :-1], chunks[rows, 1:]
                known = targets >= 0
                logits = self.network.logits(self.network.states(inputs)[known])
                return functional.cross_entropy(logits, targets[known])

            _descend(optimizer, loss_of, chunks.shape[0], epochs, batch, generator)
        self.network.eval()

    @torch.no_grad()
    def scores_of(self, liked: Tensor) -> Tensor:
        """Return the next like's logits."""
        self.network.to(liked.device)
        return self.network.logits(self.network.states(liked)[:, -1])


def _chunks(log: TrainingLog, length: int) -> Tensor:
    """Cut each user's likes into pieces of ``length`` from the end, front-padded by -1.

    Consecutive pieces overlap by one item, so that every like is a target once. The first target of
    a user's first piece follows the start token.
    """
    totals = torch.bincount(log.user, minlength=log.num_users)
    step = length - 1
    pieces = [
        torch.nn.functional.pad(
            likes[max(0, end - length) : end], (max(0, length - end), 0), value=-1
        )
        for likes in torch.split(log.item, totals.tolist())
        for end in range(likes.numel(), 0, -step)
    ]
    return torch.stack(pieces)
