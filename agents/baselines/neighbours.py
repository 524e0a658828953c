"""Item-based nearest neighbours (Sarwar et al., WWW 2001), neighbours found by ``implicit``."""

from __future__ import annotations

import torch
from implicit.nearest_neighbours import ItemItemRecommender, normalize
from torch import Tensor

from agents.baselines.scoring import ScoringPolicy, liked_items
from agents.baselines.training_log import TrainingLog
from marec_env.evaluation.policies import RecommenderView

__all__ = ["ItemKNN"]

NEIGHBOURS = 50  # of each item
HISTORY = 200  # latest likes that count


class ItemKNN(ScoringPolicy):
    """Score an item by its cosine similarity to what the user likes; clicks count at once."""

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
        self.popularity = log.counts / log.counts.max().clamp(min=1)

    def scores(self, view: RecommenderView) -> Tensor:
        """Return summed similarities; without any, popularity decides."""
        liked = liked_items(view, HISTORY)
        device = liked.device
        present = (liked >= 0).unsqueeze(-1)
        places = liked.clamp(min=0)
        weights = self.weights.to(device)[places] * present
        # Far below any similarity: popularity orders only what neighbours leave equal.
        scores = 1e-6 * self.popularity.to(device).repeat(liked.shape[0], 1)
        return scores.scatter_add_(
            1, self.neighbour_ids.to(device)[places].flatten(1), weights.flatten(1)
        )
