"""The component that vetoes: exposure limits per topic and provider, suitability limits.

Suitability is a rule, not a decision: an item whose attribute exceeds the user's limit is vetoed
whatever the auditor does. How early it steps in on exposure is its decision.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from marec_env.pipeline.component import COMPONENTS, Component, unit
from marec_env.pipeline.request import Request

__all__ = ["Auditor", "provider_share", "unsuitable"]

_OVEREXPOSED = 1.0  # levels of veto
_UNSUITABLE = 2.0


def unsuitable(request: Request, items: Tensor) -> Tensor:
    """Return which items exceed a limit of the session's user, bool ``[B, M]`` like ``items``."""
    found = torch.zeros_like(items, dtype=torch.bool)
    for place, attribute in enumerate(request.config.audit.suitability):
        value = request.knowledge.attributes.get(attribute)
        if value is not None:
            found |= value[items] > request.memory.limits[:, place : place + 1]
    return found


def provider_share(request: Request, items: Tensor) -> Tensor:
    """Return the share of the session's earlier slates that each item's provider had, float32
    ``[B, M]``; 0 before the first slate.
    """
    providers = request.knowledge.providers
    earlier = request.memory.session_items.flatten(1)
    shown = (earlier >= 0).to(torch.float32)
    count = torch.zeros(items.shape[0], request.knowledge.num_providers, device=items.device)
    count.scatter_add_(1, providers[earlier.clamp(min=0)], shown)
    return count.gather(1, providers[items]) / shown.sum(1, keepdim=True).clamp(min=1.0)


@COMPONENTS.register("auditor")
class Auditor(Component):
    """Sets the level, in parts of the house's limits, at which topics and providers are vetoed.

    0 is lenient (veto at twice the limit), 1 strict (veto at any exposure), the middle vetoes at
    the limit. If fewer than K candidates are left, vetoed ones fill the slate: overexposed first.
    """

    name = "auditor"
    fields = ("session", "exposure", "limits", "candidates")
    before = ("ranking",)
    objective = MappingProxyType({"within_limits": 1.0, "vetoed": -0.2})

    @property
    def action_space(self) -> spaces.Box:
        """Strictness about topics and about providers."""
        return spaces.Box(-1.0, 1.0, (2,), np.float32)

    def act(self, request: Request, action: Tensor) -> None:
        """Veto candidates."""
        candidates = request.need("candidates")
        level = 2.0 * (1.0 - unit(action))
        audit = request.config.audit
        topic = request.memory.exposure.gather(1, request.topics_of(candidates))
        over = topic > audit.max_topic_share * level[:, :1]
        if audit.max_provider_share < 1.0:
            share = provider_share(request, candidates)
            over |= share > audit.max_provider_share * level[:, 1:]
        request.add_veto(_OVEREXPOSED * over + _UNSUITABLE * unsuitable(request, candidates))

    def default_action(self) -> Tensor:
        """Return a veto at the limit."""
        return torch.zeros(2)
