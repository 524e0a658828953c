"""What can be evaluated: teams that act through the pipeline, and recommenders of whole slates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from marec_env.vector import Action

__all__ = ["DrawingPolicy", "Policy", "SlatePolicy", "TeamPolicy"]


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
                what :func:`marec_env.evaluation.view.recommender_view` returns.
        """
        ...


Policy = TeamPolicy | SlatePolicy
