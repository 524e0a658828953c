"""Learners, baselines and equilibrium analysis."""

from typing import TYPE_CHECKING, Any

__all__ = ["Recommender", "record_policy"]

if TYPE_CHECKING:
    from agents.commands.record import record_policy
    from agents.recommender import Recommender


def __getattr__(name: str) -> Any:
    """Load what is asked for on first use, so that importing a submodule stays light."""
    if name == "Recommender":
        from agents.recommender import Recommender

        return Recommender
    if name == "record_policy":
        from agents.commands.record import record_policy

        return record_policy
    raise AttributeError(f"module 'agents' has no attribute '{name}'")
