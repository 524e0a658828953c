"""Checks of what a user's own plug-ins return; built-in ones are tested instead."""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.errors import ConfigError
from marec_env.registry import is_own

__all__ = ["checked"]


def checked(kind: str, name: str, found: object, *shape: int | None) -> Tensor:
    """Return what a plug-in gave, if it is float32 of that shape and finite.

    Args:
        kind: of the plug-in, in words.
        name: as configured; what a built-in plug-in gave is returned as it is.
        found: what it gave.
        shape: the sizes; ``None`` where any will do.

    Raises:
        ConfigError: it is not.
    """
    if isinstance(found, Tensor) and not is_own(name):
        return found
    wanted = ", ".join("any" if size is None else str(size) for size in shape)
    hint = f"return torch.float32 [{wanted}], one row a session"
    if not isinstance(found, Tensor):
        raise ConfigError(f"{kind} '{name}' returned {type(found).__name__}; {hint}")
    fits = found.dim() == len(shape) and all(
        size is None or size == given for size, given in zip(shape, found.shape, strict=True)
    )
    if found.dtype != torch.float32 or not fits:
        raise ConfigError(f"{kind} '{name}' returned {found.dtype} {list(found.shape)}; {hint}")
    if not bool(found.isfinite().all()):
        raise ConfigError(f"{kind} '{name}' returned numbers that are not finite; mend it")
    return found
