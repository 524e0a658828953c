"""Generated logs: one scenario a file, one engine for all."""

from __future__ import annotations

from marec_env.data.scenarios.base import SCENARIOS, Scenario

# Imported for their registration, in the order in which the scenarios are listed.
from marec_env.data.scenarios import ecommerce as _ecommerce  # isort: skip
from marec_env.data.scenarios import streaming as _streaming  # isort: skip
from marec_env.data.scenarios import social as _social  # isort: skip
from marec_env.data.scenarios import ads as _ads  # isort: skip
from marec_env.data.scenarios import finance as _finance  # isort: skip

__all__ = ["SCENARIOS", "Scenario"]

del _ecommerce, _streaming, _social, _ads, _finance
