"""Linear contextual bandits: one model a user, over the recommender's own item factors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from agents.baselines.scoring import ScoringPolicy, best_unseen
from marec_env.evaluation.policies import RecommenderView, recommender_view
from marec_env.random import normal

if TYPE_CHECKING:
    from marec_env.simulator import Simulator

RIDGE = 1.0  # the prior's precision, in observations of a unit vector


class LinearPosterior:
    """Bayesian linear regression of clicks on item features, for each session by itself.

    Observations are the history (1 if liked, else 0) and the items shown in this session (1 if
    clicked). The prior mean is the direction that fits the whole log's popularity, so that a new
    user starts from what most people like.
    """

    def __init__(self, features: Tensor, popularity: Tensor, ridge: float = RIDGE) -> None:
        """``features``: float32 ``[N, d]``, a constant column is added; ``popularity``: float32
        ``[N]`` in [0, 1]; ``ridge``: precision of the prior.
        """
        constant = torch.ones(features.shape[0], 1)
        self.features = torch.cat([torch.nn.functional.normalize(features, dim=1), constant], dim=1)
        self.ridge = ridge
        gram = self.features.T @ self.features + ridge * torch.eye(self.features.shape[1])
        self.prior = torch.linalg.solve(gram, self.features.T @ popularity)

    def solve(self, view: RecommenderView) -> tuple[Tensor, Tensor]:
        """Return the mean ``[B, d]`` and the Cholesky factor of the precision ``[B, d, d]``."""
        items = torch.cat([view.history, view.session_items], dim=1)
        reward = torch.cat([view.history_liked.to(torch.float32), view.session_clicks], dim=1)
        features = self.features.to(items.device)
        present = (items >= 0).to(torch.float32)
        rows = features[items.clamp(min=0)] * present.unsqueeze(-1)
        prior = self.prior.to(items.device)
        precision = rows.mT @ rows + self.ridge * torch.eye(features.shape[1], device=items.device)
        right = torch.einsum("bl,bld->bd", reward * present, rows) + self.ridge * prior
        factor = torch.linalg.cholesky(precision)
        return torch.cholesky_solve(right.unsqueeze(-1), factor).squeeze(-1), factor


class LinUCB(ScoringPolicy):
    """Optimism (Li et al., WWW 2010): mean plus ``alpha`` standard deviations."""

    name = "linucb"

    def __init__(self, posterior: LinearPosterior, alpha: float = 0.1) -> None:
        self.posterior, self.alpha = posterior, alpha

    def scores(self, view: RecommenderView) -> Tensor:
        """Return upper bounds, ``[B, N]``."""
        mean, factor = self.posterior.solve(view)
        features = self.posterior.features.to(mean.device)
        whitened = torch.linalg.solve_triangular(
            factor, features.T.expand(mean.shape[0], -1, -1), upper=False
        )
        deviation: Tensor = whitened.square().sum(dim=1).sqrt()
        return mean @ features.T + self.alpha * deviation


class LinTS:
    """Thompson sampling (Agrawal and Goyal, ICML 2013): one draw of the weights a request."""

    name = "lints"
    privileged = False

    def __init__(self, posterior: LinearPosterior, deviation: float = 0.1) -> None:
        self.posterior, self.deviation = posterior, deviation

    def recommend(self, simulator: Simulator) -> Tensor:
        """Return the slate that is best under the drawn weights, int64 ``[B, K]``."""
        view = recommender_view(simulator)
        mean, factor = self.posterior.solve(view)
        noise = normal(simulator.session_keys, view.request_index, "baseline/lints", mean.shape[1])
        spread = torch.linalg.solve_triangular(factor.mT, noise.unsqueeze(-1), upper=True)
        weights = mean + self.deviation * spread.squeeze(-1)
        scores = weights @ self.posterior.features.to(mean.device).T
        return best_unseen(scores, view.seen, view.slate_size)
