"""The four built-in components: profile, recall, feature, ranking."""

from __future__ import annotations

import math
from types import MappingProxyType

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from marec_env.pipeline import stages
from marec_env.pipeline.component import COMPONENTS, Component, unit
from marec_env.pipeline.request import Request

__all__ = ["Feature", "Profile", "Ranking", "Recall"]


def _box(size: int) -> spaces.Box:
    return spaces.Box(-1.0, 1.0, (size,), np.float32)


@COMPONENTS.register("profile")
class Profile(Component):
    """Weights history time scales, negative feedback and the population prior, each in [0, 1]."""

    name = "profile"
    fields = ("session", "taste_change", "taste_text", "taste_cf", "interest")
    before = ("recall", "feature", "auditor", "ranking")
    objective = MappingProxyType({"probe_quality": 1.0})

    @property
    def action_space(self) -> spaces.Box:
        """One number per time scale, one for negative feedback, one for the prior."""
        return _box(len(self.config.half_lives) + 2)

    def act(self, request: Request, action: Tensor) -> None:
        """Build the profile vectors."""
        stages.run_profile(request, unit(action))

    def default_action(self) -> Tensor:
        """Return the hand-set weights as an action."""
        return 2.0 * torch.tensor(stages.default_profile_weights(self.config)) - 1.0


@COMPONENTS.register("recall")
class Recall(Component):
    """Chooses a quota level for each recall channel."""

    name = "recall"
    fields = ("session", "profile", "channel_hits", "exposure", "interest")
    before = ("feature", "auditor", "ranking")
    objective = MappingProxyType({"recall": 1.0})

    @property
    def action_space(self) -> spaces.MultiDiscrete:
        """One level per channel."""
        recall = self.config.recall
        return spaces.MultiDiscrete([recall.levels] * len(recall.channels))

    def act(self, request: Request, action: Tensor) -> None:
        """Fill the candidates."""
        stages.run_recall(request, action)

    def default_action(self) -> Tensor:
        """Return equal levels."""
        return torch.ones(len(self.config.recall.channels), dtype=torch.int64)

    def summary(self, request: Request, action: Tensor) -> Tensor:
        """Return the quotas as shares."""
        assert request.quotas is not None
        return request.quotas.to(torch.float32) / self.config.candidates


@COMPONENTS.register("feature")
class Feature(Component):
    """Chooses which feature blocks to compute."""

    name = "feature"
    fields = ("session", "block_use", "quotas", "candidates", "exposure")
    before = ("ranking",)
    objective = MappingProxyType({"ranking_quality": 1.0, "compute_cost": -1.0})

    @property
    def action_space(self) -> spaces.MultiDiscrete:
        """0 or 1 per block."""
        return spaces.MultiDiscrete([2] * len(self.config.blocks))

    def act(self, request: Request, action: Tensor) -> None:
        """Compute the blocks."""
        stages.run_feature(request, action)

    def default_action(self) -> Tensor:
        """Return all blocks on."""
        return torch.ones(len(self.config.blocks), dtype=torch.int64)


@COMPONENTS.register("ranking")
class Ranking(Component):
    """Weights the blocks, and sets diversity and exploration."""

    name = "ranking"
    fields = ("session", "candidates", "enabled", "block_use", "exposure", "interest")
    objective = MappingProxyType({"engagement": 1.0})

    @property
    def action_space(self) -> spaces.Box:
        """One number per block, then diversity, then temperature (on a logarithmic scale)."""
        return _box(len(self.config.blocks) + 2)

    def act(self, request: Request, action: Tensor) -> None:
        """Choose the slate."""
        ranking = self.config.ranking
        share = unit(action)
        ratio = math.log(ranking.max_temperature / ranking.min_temperature)
        stages.run_ranking(
            request,
            weights=ranking.max_weight * share[:, :-2],
            diversity=ranking.max_diversity * share[:, -2],
            temperature=ranking.min_temperature * torch.exp(ratio * share[:, -1]),
        )

    def default_action(self) -> Tensor:
        """Return the hand-set ranking as an action."""
        ranking = self.config.ranking
        blocks = len(self.config.blocks)
        share = torch.full((blocks + 2,), min(1.0, stages.DEFAULT_WEIGHT / ranking.max_weight))
        share[-2] = min(1.0, stages.DEFAULT_DIVERSITY / max(ranking.max_diversity, 1e-6))
        span = math.log(ranking.max_temperature / ranking.min_temperature)
        wanted = math.log(stages.DEFAULT_TEMPERATURE / ranking.min_temperature)
        share[-1] = min(1.0, max(0.0, wanted / span)) if span > 0 else 0.0
        return 2.0 * share - 1.0
