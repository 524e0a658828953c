"""Learners, baselines and equilibrium analysis."""

from typing import TYPE_CHECKING, Any

__all__ = ["Recommender"]

if TYPE_CHECKING:
    from agents.recommender import Recommender


def __getattr__(name: str) -> Any:
    """Load the recommender on first use, so that importing a submodule stays light."""
    if name != "Recommender":
        raise AttributeError(f"module 'agents' has no attribute '{name}'")
    from agents.recommender import Recommender

    return Recommender
