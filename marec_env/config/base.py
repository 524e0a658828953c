"""The base of every typed configuration section."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["ConfigModel"]


class ConfigModel(BaseModel):
    """A frozen section that refuses unknown keys, loose types and values that are not finite.

    Sections live beside the code they configure (``marec_env/users/config.py`` and so on) and are
    composed by :class:`marec_env.environment_config.EnvironmentConfig` and
    :class:`agents.config.RunConfig`. Each field carries ``Field(description=..., ge=..., le=...)``
    with its unit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
