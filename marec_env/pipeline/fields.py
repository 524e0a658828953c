"""Observation fields: everything a component or the central critic may be shown, by name.

A field is a function ``(memory, summaries) -> float32 [B, width]`` scaled to about [-1, 1]. Which
component may see which field is configuration (``pipeline.data_access``) and is enforced here: a
component is handed a view that holds its granted fields only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from marec_env.errors import ConfigError
from marec_env.pipeline.memory import SessionMemory
from marec_env.pipeline.own import checked
from marec_env.registry import Registry

__all__ = ["FIELDS", "SESSION_STATISTICS", "Field", "FieldTable", "FieldView", "Summaries"]

Summaries = Mapping[str, Tensor]
"""What the stages of the latest request left, ``[B, k]`` each; zeros at an episode's start."""

Field = Callable[[SessionMemory, Summaries], Tensor]
FIELDS: Registry[Field] = Registry("observation field")

SESSION_STATISTICS = (
    "request",
    "history_length",
    "no_history",
    "last_rate",
    "fast_rate",
    "slow_rate",
    "largest_exposure",
    "interest_entropy",
    "since_click",
)
"""Columns of the field ``session``."""

_RATE_SCALE = 2.0  # click rates rarely exceed a half
_LIMIT_SCALE = 7.0  # risk classes run from 1 to 7 (PRIIPs)
_WAIT_SCALE = 5.0  # requests without a click after which waiting hardly differs


@FIELDS.register("session")
def session(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """Return the session's statistics, one column per name of ``SESSION_STATISTICS``."""
    share = memory.interest / memory.interest.sum(1, keepdim=True).clamp(min=1e-6)
    entropy = -(share * share.clamp(min=1e-6).log()).sum(1) / math.log(max(share.shape[1], 2))
    return torch.stack(
        [
            memory.requests.to(torch.float32) / memory.session_items.shape[1],
            memory.history_length / memory.history.shape[1],
            (memory.history_length == 0).to(torch.float32),
            _RATE_SCALE * memory.last_rate,
            _RATE_SCALE * memory.fast_rate,
            _RATE_SCALE * memory.slow_rate,
            memory.exposure.amax(1),
            entropy,
            torch.tanh(memory.since_click / _WAIT_SCALE),
        ],
        dim=1,
    )


@FIELDS.register("exposure")
def exposure(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """Return the decayed topic shares of what was shown."""
    return memory.exposure


@FIELDS.register("interest")
def interest(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """Return the decayed topic shares of what was clicked."""
    return memory.interest


def _middle(taste: Tensor) -> Tensor:
    return normalize(taste[:, taste.shape[1] // 2], dim=-1)


@FIELDS.register("taste_text")
def taste_text(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """Return the direction of the middle time scale's history in text space."""
    return _middle(memory.taste_text)


@FIELDS.register("taste_cf")
def taste_cf(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """Return the direction of the middle time scale's history in collaborative space."""
    return _middle(memory.taste_cf)


@FIELDS.register("taste_change")
def taste_change(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """Return how alike the tastes of adjacent time scales are, in both spaces."""
    return torch.cat(
        [
            cosine_similarity(taste[:, 1:], taste[:, :-1], dim=-1)
            for taste in (memory.taste_text, memory.taste_cf)
        ],
        dim=1,
    )


@FIELDS.register("channel_hits")
def channel_hits(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """Return the decayed click rate of each recall channel's items."""
    return _RATE_SCALE * memory.channel_hits


@FIELDS.register("block_use")
def block_use(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """Return how well each feature block has predicted the clicks of late."""
    return memory.block_use


@FIELDS.register("group")
def group(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """Return the user's group, one-hot; sensitive, and asked for by no built-in component."""
    return memory.group


@FIELDS.register("limits")
def limits(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """Return the user's suitability limits, squashed to [0, 1]; 1 where there is none."""
    return torch.where(memory.limits.isinf(), 1.0, torch.tanh(memory.limits / _LIMIT_SCALE))


@FIELDS.register("since_refit")
def since_refit(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """Return the requests since the last refit (or the start) as a share of the longest episode."""
    passed = (memory.requests - memory.refit_at).to(torch.float32)
    return (passed / memory.session_items.shape[1]).unsqueeze(1)


@FIELDS.register("profile")
def profile(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """Return the latest profile vectors, text then collaborative."""
    return summaries["profile"]


@FIELDS.register("quotas")
def quotas(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """Return the latest quota of each channel as a share."""
    return summaries["quotas"]


@FIELDS.register("candidates")
def candidates(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """Return the latest candidates' topic shares and mean popularity, freshness and scores."""
    return summaries["candidates"]


@FIELDS.register("enabled")
def enabled(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """Return which blocks were computed last."""
    return summaries["enabled"]


class FieldTable:
    """The fields as they stand, each computed once, whoever asks."""

    def __init__(self, memory: SessionMemory, summaries: Summaries) -> None:
        self._memory = memory
        self._summaries = summaries
        self._found: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        found = self._found.get(name)
        if found is None:
            given = FIELDS.get(name)(self._memory, self._summaries)
            found = checked("observation field", name, given, self._memory.num_sessions, None)
            self._found[name] = found
        return found


@dataclass(frozen=True, slots=True)
class FieldView(Mapping[str, Tensor]):
    """The fields one component may read."""

    component: str
    granted: tuple[str, ...]
    _table: FieldTable

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.granted:
            raise ConfigError(
                f"component '{self.component}' may not read the field '{name}' (granted: "
                f"{', '.join(self.granted) or 'none'}); grant it in pipeline.data_access"
            )
        return self._table[name]

    def __contains__(self, name: object) -> bool:
        return name in self.granted

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field, ``default`` where it is not granted."""
        return self[name] if name in self.granted else default

    def __iter__(self) -> Iterator[str]:
        return iter(self.granted)

    def __len__(self) -> int:
        return len(self.granted)
