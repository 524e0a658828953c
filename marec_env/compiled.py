"""Loops over arrays that numba compiles, for what the CPU does badly in tensor operations.

Choosing one item after another, each choice depending on those before, takes some twenty passes
over all sessions in tensor operations, and one in a loop. So such steps are written twice: in
tensor operations, which is what CUDA runs, and as a compiled loop for the CPU. Both give the same
bits, and tests hold them together. Steps that are products or element by element stay tensor code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

__all__ = ["compiled"]

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
        return made[0](*args, **kwargs)

    return call


def _compile(function: Callable[P, R]) -> Callable[P, R]:
    import numba  # a third of a second, which importing the package need not pay

    try:
        return numba.njit(cache=True, nogil=True, boundscheck=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # nowhere to keep the code
        return numba.njit(nogil=True, boundscheck=True)(function)  # type: ignore[no-any-return]
