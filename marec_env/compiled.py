"""Loops over arrays that numba compiles, for what the CPU does badly in tensor operations.

Choosing one item after another, each choice depending on those before, takes some twenty passes
over all sessions in tensor operations, and one in a loop. So such steps are written twice: in
tensor operations, which is what CUDA runs, and as a compiled loop for the CPU. Both give the same
bits, and tests hold them together. Steps that are products or element by element stay tensor code.
What concerns some sessions only is computed for those on the CPU, and for all elsewhere: ``Rows``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Rows", "compiled"]

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Let numba compile a function of arrays and numbers when it is first called.

    The compiled code is kept on disk for the next process. What numba keeps are pickles, and
    loading one runs it: so it lies in a folder of the user's own, which nobody else may write. A
    place outside an array raises ``IndexError``.
    """
    made: list[Callable[P, R]] = []

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not made:
            made.append(_compile(function))
        try:
            return made[0](*args, **kwargs)
        except Exception:  # damaged code fails in any way; what is no fault of it fails again
            _forget(made[0])
            made[0] = _compile(function, keep=False)
            return made[0](*args, **kwargs)

    return call


def _compile(function: Callable[P, R], keep: bool = True) -> Callable[P, R]:
    import numba  # a third of a second, which importing the package need not pay

    folder = _folder() if keep else None
    if folder is not None:
        others, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(folder)
        try:
            return numba.njit(cache=True, nogil=True, boundscheck=True)(function)  # type: ignore[no-any-return]
        except RuntimeError:  # the code cannot be kept there
            pass
        finally:
            numba.config.CACHE_DIR = others
    return numba.njit(nogil=True, boundscheck=True)(function)  # type: ignore[no-any-return]


def _folder() -> Path | None:
    """Return where compiled code is kept (``MAREC_CACHE``, else ``~/.cache/marec``, ``compiled``);
    ``None`` if it cannot be made, or somebody else may write there.
    """
    try:
        cache = Path(os.environ.get("MAREC_CACHE") or "~/.cache/marec").expanduser()
        place = cache / "compiled"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = place.stat()
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        return None
    return place


def _forget(dispatcher: Any) -> None:
    """Delete the index of a function's kept code, as far as that can be done.

    numba writes the index before the code: if the disk is full in between, the new index leads to
    the code of an older source.
    """
    with suppress(AttributeError, OSError):
        os.unlink(dispatcher._cache._cache_file._index_path)


class Rows:
    """Some of ``B`` sessions.

    On the CPU only they are computed. Elsewhere all are, and a mask decides what is kept: no shape
    depends on numbers, and nothing waits for the device.
    """

    __slots__ = ("index", "where")

    def __init__(self, where: Tensor | None = None) -> None:
        """Args:
        where: bool ``[B]``, which; all if ``None``.
        """
        self.where = where
        self.index = where.nonzero().squeeze(1) if where is not None and where.is_cpu else None
        """Int64 ``[n]`` on the CPU, unless all."""

    def __bool__(self) -> bool:
        """Whether there may be any."""
        return self.index is None or len(self.index) > 0

    def of(self, values: Tensor) -> Tensor:
        """Return what is computed of ``[B, ...]`` values: ``[n, ...]``, or all of them."""
        return values if self.index is None else values[self.index]

    def put(self, target: Tensor, values: Tensor | float) -> None:
        """Write numbers, one or as many as :meth:`of` returns, to these rows of ``[B, ...]``."""
        if self.index is not None:
            target[self.index] = values
            return
        if self.where is not None:
            where = self.where.view(-1, *[1] * (target.dim() - 1))
            if isinstance(values, float | int):
                target.masked_fill_(where, values)
                return
            values = values.where(where, target)
        target.fill_(values) if isinstance(values, float | int) else target.copy_(values)

    def put_in(self, base: Tensor, values: Tensor | float) -> Tensor:
        """Return a copy of ``base`` with numbers put as :meth:`put` does."""
        found = base.clone()
        self.put(found, values)
        return found
