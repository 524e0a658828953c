"""Generated logs: one engine for all scenarios."""

from __future__ import annotations

# The scenarios register themselves when they are imported.
from marec_env.data.scenarios import kinds
from marec_env.data.scenarios.base import SCENARIOS, Scenario

__all__ = ["SCENARIOS", "Scenario", "kinds"]
