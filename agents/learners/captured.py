"""A step on a mini-batch as one launch: a CUDA graph over fixed buffers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["CapturedStep"]

Results = tuple[dict[str, Tensor], dict[str, Tensor]]

_EAGER = 3  # steps before the capture: optimisers and libraries allocate what they keep
_KINDS = 16  # shapes of mini-batches that are captured; more would fill the memory


class _Graph:
    """The mini-batches of one shape."""

    def __init__(self) -> None:
        self.taken = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.buffers: dict[str, dict[str, Tensor]] = {}
        self.sources: dict[str, Any] = {}
        self.results: Results = ({}, {})


class CapturedStep:
    """Takes ``step`` on mini-batches; after a few of a shape the next ones replay its graph.

    A step that cannot be captured goes on as it is, which a warning says once.
    """

    def __init__(self, step: Callable[[Mapping[str, Any]], Results]) -> None:
        """Args:
        step: of columns by network; returns tensors by name and waits for nothing.
        """
        self._step = step
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graphs: dict[tuple[Any, ...], _Graph] = {}
        self._works = True

    def __call__(self, batch: Mapping[str, Mapping[str, Tensor]]) -> Results:
        """Take one step; what it returns is the caller's own."""
        shapes = tuple(
            (name, key, column.shape, column.dtype)
            for name, columns in batch.items()
            for key, column in columns.items()
        )
        if shapes not in self._graphs and len(self._graphs) == _KINDS:
            return self._step(batch)
        state = self._graphs.setdefault(shapes, _Graph())
        if not self._works or state.taken < _EAGER:
            return self._eager(state, batch)
        if state.graph is None:
            try:
                self._capture(state, batch)
            except RuntimeError as error:
                self._works = False
                reason = " ".join(str(error).split())
                logging.getLogger(__name__).warning(
                    "updates run without a CUDA graph: %s", reason[:200]
                )
                return self._eager(state, batch)
        assert state.graph is not None
        self._fill(state, batch)
        state.graph.replay()
        logged, skips = state.results
        return {k: v.clone() for k, v in logged.items()}, {k: v.clone() for k, v in skips.items()}

    def _eager(self, state: _Graph, batch: Mapping[str, Mapping[str, Tensor]]) -> Results:
        """Take the step on the stream that is captured, as torch asks before a capture."""
        state.taken += 1
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            results = self._step(batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        return results

    def _capture(self, state: _Graph, batch: Mapping[str, Mapping[str, Tensor]]) -> None:
        buffers = {
            name: {key: column.clone() for key, column in columns.items()}
            for name, columns in batch.items()
        }
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            state.results = self._step(buffers)
        state.graph, state.buffers, state.sources = graph, buffers, dict(batch)

    def _fill(self, state: _Graph, batch: Mapping[str, Mapping[str, Tensor]]) -> None:
        for name, columns in batch.items():
            if state.sources[name] is columns:  # all passes over a whole batch see the same data
                continue
            state.sources[name] = columns
            for key, column in columns.items():
                state.buffers[name][key].copy_(column)
