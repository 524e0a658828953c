"""Typed, strict configuration."""

from marec_env.config.base import (
    MAX_SEED,
    ConfigModel,
    Device,
    Seed,
    between,
    share,
    usable_device,
)

__all__ = ["MAX_SEED", "ConfigModel", "Device", "Seed", "between", "share", "usable_device"]
