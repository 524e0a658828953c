"""Loops over arrays that numba compiles, for what the CPU does badly in tensor operations.

Choosing one item after another, each choice depending on those before, takes some twenty passes
over all sessions in tensor operations, and one in a loop. So such steps are written twice: in
tensor operations, which is what CUDA runs, and as a compiled loop for the CPU. Both give the same
bits, and tests hold them together. Steps that are products or element by element stay tensor code.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from torch import Tensor

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


_recording = False


@contextmanager
def recording(on: bool = True) -> Iterator[None]:
    """Within, a step on the CPU is recorded (:mod:`marec_env.step_program`): as on a GPU no shape
    depends on numbers and the host decides nothing.
    """
    global _recording
    before, _recording = _recording, on
    try:
        yield
    finally:
        _recording = before


def eager(values: Tensor) -> bool:
    """Whether work on a tensor may look at its numbers: on the CPU, unless it is recorded."""
    return values.is_cpu and not _recording


def _compile(function: Callable[P, R], keep: bool = True) -> Callable[P, R]:
    import numba  # a third of a second, which importing the package need not pay

    folder = code_folder() if keep else None
    if folder is not None:
        others, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(folder)
        try:
            return numba.njit(cache=True, nogil=True, boundscheck=True)(function)  # type: ignore[no-any-return]
        except RuntimeError:  # the code cannot be kept there
            pass
        finally:
            numba.config.CACHE_DIR = others
    return numba.njit(nogil=True, boundscheck=True)(function)  # type: ignore[no-any-return]


def code_folder() -> Path | None:
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
