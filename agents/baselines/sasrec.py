"""SASRec (Kang and McAuley, ICDM 2018): causal self-attention over the sequence of likes.

Trained with full cross-entropy over the catalog instead of one sampled negative, which is what
makes it strong (Klenitskiy and Vasilev, "Turning Dross Into Gold Loss", RecSys 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.baselines.scoring import ScoringPolicy, liked_items
from agents.baselines.training_log import TrainingLog
from marec_env.evaluation.policies import RecommenderView

__all__ = ["SASRec", "SASRecNetwork"]


class SASRecNetwork(nn.Module):
    """Item and position embeddings, pre-norm transformer blocks, tied output weights."""

    def __init__(
        self, num_items: int, length: int, dim: int, blocks: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.length, self.heads = length, heads
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

    def forward(self, sequences: Tensor) -> Tensor:
        """Return the next item's logits after each prefix, ``[B, L, N]``."""
        return functional.linear(self.states(sequences), self.items.weight[:-1], self.bias)


class SASRec(ScoringPolicy):
    """Predict the next like from the sequence of likes, this session's clicks included."""

    name = "sasrec"

    def __init__(
        self,
        log: TrainingLog,
        seed: int = 0,
        length: int = 50,
        dim: int = 48,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.3,
        epochs: int = 30,
        batch: int = 64,
        learning_rate: float = 1e-3,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = SASRecNetwork(log.num_items, length, dim, blocks, heads, dropout)
            optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate)
            chunks = _chunks(log, length + 1)
            for _ in range(epochs):
                for rows in torch.split(
                    torch.randperm(chunks.shape[0], generator=generator), batch
                ):
                    inputs, targets = chunks[rows, :-1], chunks[rows, 1:]
                    known = targets >= 0
                    states = self.network.states(inputs)[known]
                    logits = functional.linear(
                        states, self.network.items.weight[:-1], self.network.bias
                    )
                    loss = functional.cross_entropy(logits, targets[known])
                    optimizer.zero_grad()
                    torch.autograd.backward(loss)
                    optimizer.step()
        self.network.eval()

    @torch.no_grad()
    def scores(self, view: RecommenderView) -> Tensor:
        """Return the next like's logits, ``[B, N]``."""
        liked = liked_items(view, self.network.length)
        self.network.to(liked.device)
        last = self.network.states(liked)[:, -1]
        return functional.linear(last, self.network.items.weight[:-1], self.network.bias)


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
