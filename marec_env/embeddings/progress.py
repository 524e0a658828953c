"""A progress bar with tokens a second, on standard error, for requests that take a while."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress"]

_LOG = logging.getLogger(__name__)
_BAR_ABOVE = 2000  # texts; fewer take a few seconds


@contextmanager
def progress(texts: int, above: int = _BAR_ABOVE) -> Iterator[Callable[[int, int], None]]:
    """Give a function to be called with the texts and tokens done; a bar shows long requests.

    Args:
        texts: how many there are in all.
        above: a request with more texts than this gets a bar, if standard error is a terminal.
    """
    begin, tokens = time.perf_counter(), 0

    def rate() -> float:
        return tokens / max(time.perf_counter() - begin, 1e-9)

    if texts <= above or not sys.stderr.isatty():

        def count(_texts: int, more: int) -> None:
            nonlocal tokens
            tokens += more

        yield count
        if texts > above:
            _LOG.info("embedded %d texts, %d tokens, %.0f tokens/s", texts, tokens, rate())
        return

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("embedding"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f} tokens/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("embedding", total=texts, rate=0.0)

        def advance(done: int, more: int) -> None:
            nonlocal tokens
            tokens += more
            bar.update(task, advance=done, rate=rate())

        yield advance
