"""marec: a recommender pipeline as a team of agents, facing simulated users.

Importing this package imports neither ray nor wandb nor transformers.
"""

from typing import TYPE_CHECKING, Any

from pettingzoo import aec_registry, parallel_registry, register

__version__ = "0.1.0"

__all__ = ["PIPELINE_ID", "EnvironmentConfig", "aec_env", "make_vec", "parallel_env"]

PIPELINE_ID = "marec/pipeline-v0"
"""``pettingzoo.make("parallel", PIPELINE_ID)``; bump the version when results change."""

if PIPELINE_ID not in parallel_registry:
    register("parallel", PIPELINE_ID, "marec_env.env:parallel_env")
if PIPELINE_ID not in aec_registry:
    register("aec", PIPELINE_ID, "marec_env.env:aec_env")

_HOMES = {
    "EnvironmentConfig": "marec_env.environment_config",
    "aec_env": "marec_env.env",
    "make_vec": "marec_env.env",
    "parallel_env": "marec_env.env",
}

if TYPE_CHECKING:
    from marec_env.env import aec_env, make_vec, parallel_env
    from marec_env.environment_config import EnvironmentConfig


def __getattr__(name: str) -> Any:
    """Load a public name on first use, so that importing a submodule stays light."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'marec_env' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
