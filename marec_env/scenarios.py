"""Scenarios as environments by name: what each changes in the default one.

Every scenario takes the log that :mod:`marec_env.data.synthetic` generates for it and users who
behave as that log's: the same rates and mechanisms (``docs/users.md`` says on what evidence).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from marec_env.config.loader import load_mapping
from marec_env.data.scenarios import SCENARIOS
from marec_env.environment_config import EnvironmentConfig
from marec_env.users.scenario_presets import LIKED_FROM, SCENARIO_USERS

__all__ = ["SCENARIO_CHANGES", "scenario_environment"]

_AUDITED = ("profile", "recall", "feature", "auditor", "ranking")


def _changes(name: str) -> dict[str, Any]:
    scenario = SCENARIOS.get(name)
    pipeline: dict[str, Any] = {"slate_size": scenario.slate_size}
    if name == "finance":  # only what suits a client may be shown
        pipeline["components"] = _AUDITED
    return {
        "data": {"source": f"synthetic/{name}", "like_threshold": LIKED_FROM[name]},
        "population": {"scale": scenario.relevance},
        "pipeline": pipeline,
        "users": SCENARIO_USERS[name],
    }


SCENARIO_CHANGES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {name: _changes(name) for name in SCENARIO_USERS}
)
"""By scenario, the values that may differ from the default environment."""


def scenario_environment(name: str) -> EnvironmentConfig:
    """Return the environment of a scenario, every other value at its default."""
    return load_mapping(SCENARIO_CHANGES[name], EnvironmentConfig, f"scenario {name}")
