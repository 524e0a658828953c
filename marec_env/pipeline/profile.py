"""The component that says who the user is: profile vectors in text and collaborative space."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn.functional import normalize

from marec_env.pipeline.component import COMPONENTS, Component, unit
from marec_env.pipeline.request import Request

__all__ = ["Profile"]

_NEGATIVE = 0.2  # hand-set: dislikes count a fifth of likes
_PRIOR = 0.1  # hand-set: a weak population prior


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
        return spaces.Box(-1.0, 1.0, (len(self.config.half_lives) + 2,), np.float32)

    def act(self, request: Request, action: Tensor) -> None:
        """Build the profile vectors."""
        memory, knowledge = request.memory, request.knowledge
        weights = unit(action)
        by_scale = weights[:, :-2].unsqueeze(-1)
        negative, prior = weights[:, -2:-1], weights[:, -1:]
        made = []
        for taste, dislike, centre in (
            (memory.taste_text, memory.dislike_text, knowledge.centre_text),
            (memory.taste_cf, memory.dislike_cf, knowledge.centre_cf),
        ):
            vector = (
                (by_scale * normalize(taste, dim=-1)).sum(1)
                - negative * normalize(dislike, dim=-1)
                + prior * centre
            )
            made.append(vector)
        text, cf = made
        if request.profile_shift is not None:
            cf = normalize(cf, dim=-1) + request.profile_shift
        request.profile_text, request.profile_cf = normalize(text, dim=-1), normalize(cf, dim=-1)
        request.profile_version = knowledge.version

    def default_action(self) -> Tensor:
        """Return all time scales alike, some negative feedback, a weak prior."""
        weights = [1.0] * len(self.config.half_lives) + [_NEGATIVE, _PRIOR]
        return 2.0 * torch.tensor(weights) - 1.0
