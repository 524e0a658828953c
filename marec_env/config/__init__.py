"""Typed, strict configuration."""

from marec_env.config.base import (
    MAX_SEED,
    ConfigModel,
    Device,
    Seed,
    between,
    chosen_device,
    share,
    usable_device,
)

__all__ = [
    "MAX_SEED",
    "ConfigModel",
    "Device",
    "Seed",
    "between",
    "chosen_device",
    "share",
    "usable_device",
]
