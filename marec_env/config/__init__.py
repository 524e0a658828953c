"""Typed, strict configuration: the base of every section, and types that many of them share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from marec_env.errors import ConfigError

if TYPE_CHECKING:
    import torch

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

MAX_SEED = 2**32 - 1
"""What numpy's generators take, on which learners and libraries rely."""
_LARGEST = 2**53  # whole numbers beyond it are no numbers of anything, nor exact as floats
_DEVICE = re.compile(r"cpu|cuda(:(0|[1-9][0-9]{0,2}))?")


class ConfigModel(BaseModel):
    """A frozen section that refuses unknown keys, loose types and values that are not finite.

    Sections live beside the code they configure (``marec_env/users/config.py`` and so on) and are
    composed by :class:`marec_env.environment_config.EnvironmentConfig` and
    :class:`agents.config.RunConfig`. Each field carries ``Field(description=..., ge=..., le=...)``
    with its unit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*", mode="after")
    @classmethod
    def _fits(cls, value: Any) -> Any:
        """Refuse whole numbers that no tensor can hold."""
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise ValueError(f"{value} is beyond any use; allowed: within ±{_LARGEST}")
        return value


def between(default: float | None, low: float, high: float, description: str) -> Any:
    """Return a number's field with its range."""
    return Field(default=default, ge=low, le=high, description=description)


def share(default: float, description: str) -> Any:
    """Return the field of a share or a probability."""
    return between(default, 0, 1, description)


def _device(value: str) -> str:
    if not _DEVICE.fullmatch(value):
        raise ValueError(f"must be 'cpu', 'cuda' or 'cuda:' and a number (got '{value}')")
    return value


Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
"""A seed of draws."""
Device = Annotated[str, AfterValidator(_device)]
"""Where tensors live. That this machine has it is asked where it is used, so that a run of another
machine can be read: :func:`usable_device`."""


def chosen_device(key: str, name: str) -> str:
    """Return ``name``, or for ``auto`` CUDA where there is one and the CPU otherwise.

    Raises:
        ConfigError: as :func:`usable_device`.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    usable_device(key, name)
    return name


def usable_device(key: str, name: str) -> torch.device:
    """Return a device that this machine has.

    Raises:
        ConfigError: the name, configured at ``key``, is none of a device's, or this machine lacks
            the device.
    """
    import torch

    try:
        _device(name)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(
                f"{key}: PyTorch finds no GPU for '{name}'; use cpu, or install PyTorch with CUDA "
                "(make ... TORCH=cuda)"
            )
        if (device.index or 0) >= torch.cuda.device_count():
            last = torch.cuda.device_count() - 1
            raise ConfigError(f"{key}: there is no '{name}'; the last GPU is cuda:{last}")
    return device
