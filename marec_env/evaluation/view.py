"""What a recommender outside the pipeline may know of the running sessions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from marec_env.simulator import Simulator

__all__ = ["RecommenderView", "recommender_view"]


@dataclass(frozen=True)
class RecommenderView:
    """``B`` sessions over ``N`` items, without anything hidden; read-only."""

    history: Tensor
    """Int64 ``[B, H]``: items consumed before the episode, oldest first, padded with -1."""
    history_liked: Tensor
    """Bool ``[B, H]``: which of them the user liked."""
    session_items: Tensor
    """Int64 ``[B, L]``: items shown in this episode, oldest first, padded with -1."""
    session_clicks: Tensor
    """Float32 ``[B, L]``: 1 where the shown item was clicked."""
    seen: Tensor
    """Bool ``[B, N]``: must not be recommended (again)."""
    request_index: Tensor
    """Int64 ``[B]``: requests answered so far in this episode."""
    slate_size: int
    """The number of items to show, K."""


def recommender_view(simulator: Simulator) -> RecommenderView:
    """Return what the pipeline of a simulator may see at this moment."""
    memory = simulator.pipeline.memory
    # Only requests made so far: the log's later rows are empty and would cost time.
    made = min(int(memory.requests.max()), memory.session_items.shape[1])
    return RecommenderView(
        history=memory.history,
        history_liked=memory.history_liked,
        session_items=memory.session_items[:, :made].flatten(1),
        session_clicks=memory.session_clicks[:, :made].flatten(1),
        seen=memory.seen,
        request_index=memory.requests,
        slate_size=simulator.config.pipeline.slate_size,
    )
