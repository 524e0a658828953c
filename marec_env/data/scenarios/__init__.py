"""Generated logs: one scenario a file, one engine for all."""

from __future__ import annotations

# The scenarios register themselves when they are imported.
from marec_env.data.scenarios import ads, ecommerce, finance, social, streaming
from marec_env.data.scenarios.base import SCENARIOS, Scenario

__all__ = ["SCENARIOS", "Scenario", "ads", "ecommerce", "finance", "social", "streaming"]
