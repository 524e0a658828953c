"""Loops over arrays that numba compiles, for what the CPU does badly in tensor operations.

Choosing one item after another, each choice depending on those before, takes some twenty passes
over all sessions in tensor operations, and one in a loop. So such steps are written twice: in
tensor operations, which is what CUDA runs, and as a compiled loop for the CPU. Both give the same
bits, and tests hold them together. Steps that are products or element by element stay tensor code.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, ParamSpec, TypeVar

__all__ = ["compiled"]

_CACHE_ERRORS = (OSError, EOFError, pickle.UnpicklingError)
"""Of kept code that is damaged, or cannot be read or written."""

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Let numba compile a function of arrays and numbers when it is first called.

    The compiled code is kept on disk for the next process, where numba may write: beside the
    source, else in the user's cache folder (``NUMBA_CACHE_DIR`` names another). A place outside an
    array raises ``IndexError``.
    """
    made: list[Callable[P, R]] = []

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not made:
            made.append(_compile(function))
        try:
            return made[0](*args, **kwargs)
        except _CACHE_ERRORS:  # before the first line has run: the code is read, then called
            _forget(made[0])
            made[0] = _compile(function, keep=False)
            return made[0](*args, **kwargs)

    return call


def _compile(function: Callable[P, R], keep: bool = True) -> Callable[P, R]:
    import numba  # a third of a second, which importing the package need not pay

    if keep:
        try:
            return numba.njit(cache=True, nogil=True, boundscheck=True)(function)  # type: ignore[no-any-return]
        except RuntimeError:  # nowhere to keep the code
            pass
    return numba.njit(nogil=True, boundscheck=True)(function)  # type: ignore[no-any-return]


def _forget(dispatcher: Any) -> None:
    """Delete the index of a function's kept code, as far as that can be done.

    numba writes the index before the code: if the disk is full in between, the new index leads to
    the code of an older source.
    """
    with suppress(AttributeError, OSError):
        os.unlink(dispatcher._cache._cache_file._index_path)
