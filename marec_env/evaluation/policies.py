"""What can be evaluated: teams that act through the pipeline, and recommenders of whole slates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor

from marec_env.vector import Action

if TYPE_CHECKING:
    from marec_env.simulator import Simulator

__all__ = [
    "DrawingPolicy",
    "Policy",
    "RecommenderView",
    "SlatePolicy",
    "TeamPolicy",
    "recommender_view",
]


@runtime_checkable
class TeamPolicy(Protocol):
    """A team: one action for each component of the pipeline."""

    def reset(self) -> None:
        """Begin new episodes everywhere: forget recurrent state."""
        ...

    def act(self, observations: Mapping[str, Tensor]) -> dict[str, Action]:
        """Act for the agents of one turn.

        Args:
            observations: float32 ``[B, d_i]`` for each agent of the turn.

        Returns:
            A batch of actions for each of these agents.
        """
        ...


@runtime_checkable
class DrawingPolicy(Protocol):
    """A team whose actions are random, told whose episodes begin so that draws are theirs alone."""

    def begin(self, sessions: Tensor) -> None:
        """Begin the episodes of the sessions with these keys, int64 ``[B]``.

        Draws that follow from a session's key, and from nothing else of the batch, are the same
        whatever the batch size.
        """
        ...


@runtime_checkable
class SlatePolicy(Protocol):
    """A recommender that composes slates by itself: a classic algorithm or an oracle."""

    privileged: bool
    """Whether it reads the users' hidden state; such a policy is a bound, not a competitor."""

    def recommend(self, simulator: Any) -> Tensor:
        """Return one slate a session, int64 ``[B, K]``, of unseen items.

        Args:
            simulator: a :class:`marec_env.simulator.Simulator`; unprivileged policies read only
                what :func:`recommender_view` returns.
        """
        ...


Policy = TeamPolicy | SlatePolicy


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

    @property
    def most_seen(self) -> int:
        """Items of which ``seen`` holds no more in any session."""
        return self.history.shape[1] + self.session_items.shape[1]


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
