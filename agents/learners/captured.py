"""Work on columns of tensors as one launch, a CUDA graph over fixed buffers; and an Adam for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from marec_env.graph import capturing, copy_pairs, own_copy

Batch = Mapping[str, Mapping[str, Tensor]]

_EAGER = 3  # steps before the capture: optimisers and libraries allocate what they keep
_KINDS = 16  # shapes of mini-batches that are captured; more would fill the memory


class _Graph:
    """The batches of one shape."""

    def __init__(self) -> None:
        self.taken = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.buffers: dict[str, dict[str, Tensor]] = {}
        self.sources: dict[str, Any] = {}
        self.results: Any = None


class CapturedStep:
    """Takes ``step`` on batches; after a few of a shape the next ones replay its graph.

    A step that cannot be captured goes on as it is, which a warning says once.
    """

    def __init__(self, step: Callable[[Batch], Any]) -> None:
        """Args:
        step: of columns by network or agent; returns nested dicts and tuples of tensors, waits for
            nothing, and changes tensors in place alone.
        """
        self._step = step
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graphs: dict[tuple[Any, ...], _Graph] = {}
        self._works = True

    def __call__(self, batch: Batch) -> Any:
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
        return own_copy(state.results)

    def _eager(self, state: _Graph, batch: Batch) -> Any:
        """Take the step on the stream that is captured, as torch asks before a capture."""
        state.taken += 1
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            results = self._step(batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        return results

    def _capture(self, state: _Graph, batch: Batch) -> None:
        buffers = {
            name: {key: column.clone() for key, column in columns.items()}
            for name, columns in batch.items()
        }
        graph = torch.cuda.CUDAGraph()
        with capturing(graph, self._stream):
            state.results = self._step(buffers)
        state.graph, state.buffers, state.sources = graph, buffers, dict(batch)

    def _fill(self, state: _Graph, batch: Batch) -> None:
        pairs = []
        for name, columns in batch.items():
            if state.sources[name] is columns:  # all passes over a whole batch see the same data
                continue
            state.sources[name] = columns
            pairs += [(state.buffers[name][key], column) for key, column in columns.items()]
        copy_pairs(pairs)


def adam(
    params: Sequence[torch.nn.Parameter], rate: float, epsilon: float, device: torch.device
) -> torch.optim.Adam:
    """Return an optimiser that a graph can hold where there are graphs: it reads the rate anew."""
    graphs = device.type == "cuda"
    lr = torch.tensor(rate, device=device) if graphs else rate
    return torch.optim.Adam(params, lr=lr, eps=epsilon, fused=True, capturable=graphs)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate, where it lies."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def portable(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimiser's state, with what depends on the device as the CPU has it."""
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group.update({"lr": float(group["lr"]), "capturable": False})
    return state


def load_portable(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Take over a state but for the rate and what depends on the device."""
    own = [{key: group[key] for key in ("lr", "capturable")} for group in optimizer.param_groups]
    optimizer.load_state_dict(dict(state))
    for group, kept in zip(optimizer.param_groups, own, strict=True):
        group.update(kept)
