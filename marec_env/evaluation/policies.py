"""What can be evaluated: teams that act through the pipeline, and recommenders of whole slates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from marec_env.vector import Action

__all__ = ["Policy", "RecommenderView", "SlatePolicy", "TeamPolicy"]


@runtime_checkable
class TeamPolicy(Protocol):
    """A team: one action for each component of the pipeline."""

    name: str

    def reset(self, num_sessions: int) -> None:
        """Begin ``num_sessions`` new episodes: forget recurrent state."""
        ...

    def act(self, observations: Mapping[str, Tensor]) -> dict[str, Action]:
        """Act for the agents of one turn.

        Args:
            observations: float32 ``[B, d_i]`` for each agent of the turn.

        Returns:
            A batch of actions for each of these agents.
        """
        ...


class RecommenderView(Protocol):
    """What a recommender may know about ``B`` sessions over ``N`` items."""

    @property
    def history(self) -> Tensor:
        """Int64 ``[B, H]``: items consumed before the episode, oldest first, padded with -1."""
        ...

    @property
    def history_liked(self) -> Tensor:
        """Bool ``[B, H]``: which of them the user liked."""
        ...

    @property
    def seen(self) -> Tensor:
        """Bool ``[B, N]``: must not be recommended (again)."""
        ...

    @property
    def session_items(self) -> Tensor:
        """Int64 ``[B, L]``: items shown in this episode, oldest first, padded with -1."""
        ...

    @property
    def session_clicks(self) -> Tensor:
        """Float32 ``[B, L]``: 1 where the shown item was clicked."""
        ...

    @property
    def request_index(self) -> Tensor:
        """Int64 ``[B]``: requests answered so far in this episode."""
        ...

    @property
    def slate_size(self) -> int:
        """The number of items to show, K."""
        ...


@runtime_checkable
class SlatePolicy(Protocol):
    """A recommender that composes slates by itself: a classic algorithm or an oracle."""

    name: str
    privileged: bool
    """Whether it reads the users' hidden state; such a policy is a bound, not a competitor."""

    def recommend(self, simulator: Any) -> Tensor:
        """Return one slate a session, int64 ``[B, K]``, of unseen items.

        Args:
            simulator: a :class:`marec_env.simulator.Simulator`; unprivileged policies read its
                ``view`` alone.
        """
        ...


Policy = TeamPolicy | SlatePolicy
