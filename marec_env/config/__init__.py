"""Typed, strict configuration."""

from marec_env.config.base import ConfigModel

__all__ = ["ConfigModel"]
