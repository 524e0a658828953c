"""A step on the CPU as one compiled program, for :mod:`marec_env.graph`.

One session's step is some two thousand operators on a handful of numbers each, and takes the time
of calling them. Recorded, they are fused into a few dozen loops in C++ by torch's compiler, which
needs a C++ compiler and a minute, and what it made is kept for the next process. Numbers are added
up in another order than operator by operator: they agree to about 1e-6, and draws exactly.
"""

from __future__ import annotations

import hashlib
import logging
import operator
import os
import platform
import shutil
import sys
import warnings
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakIdKeyDictionary

from marec_env.compiled import code_folder, eager, recording
from marec_env.errors import RunError
from marec_env.io import write_bytes
from marec_env.vector import VecStep

_LOG = logging.getLogger(__name__)
_DIGITS = 32  # of a kept program's name
_OPTIONS = {
    "cpp.threads": 1,
    "size_asserts": False,
    "aot_inductor.compile_wrapper_opt_level": "O0",  # what calls the loops: half of the minute
}
_TO_HOST = torch.ops.aten._local_scalar_dense.default
_SEEING = (Tensor.numpy, Tensor.tolist, Tensor.item, Tensor.__array__)


class CompiledTape:
    """Records a step's operators and compiles them (a :class:`marec_env.graph.Tape`)."""

    def record(self, work: Callable[[], VecStep]) -> VecStep:
        """See :class:`marec_env.graph.Tape`.

        Raises:
            RuntimeError: the step cannot be compiled, or there is no compiler.
        """
        for _ in range(2):  # in the first, what is kept from then on is made
            recorder = _Recorder()
            found, program = recorder.record(work)
        self._inputs = recorder.inputs
        with torch.no_grad():
            self._run = _compiled(program, self._inputs)
        return found

    def replay(self) -> None:
        """See :class:`marec_env.graph.Tape`."""
        self._run(self._inputs)


def _compiled(program: fx.GraphModule, inputs: list[Tensor]) -> Callable[[list[Tensor]], Any]:
    """Return a program of these inputs, compiled now or by an earlier process.

    Raises:
        RuntimeError: there is no compiler, or it failed.
    """
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise RuntimeError(f"there is no C++ compiler '{compiler}' (CXX names another)")
    import torch._inductor as inductor  # seconds, which others need not wait for

    shapes = [(value.dtype, *value.shape, *value.stride()) for value in inputs]
    machine = (torch.__version__, torch.backends.cpu.get_cpu_capability(), platform.node())
    name = hashlib.sha256(f"{machine} {shapes} {program.code}".encode()).hexdigest()[:_DIGITS]
    folder = code_folder()
    with TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = Path(temporary) / f"step-{name}.pt2"
        kept = made if folder is None else folder / made.name
        if kept.exists():
            with suppress(OSError, RuntimeError):  # damaged
                return inductor.aoti_load_package(str(kept), run_single_threaded=True).loader.run
        _LOG.warning("compiling the step, which takes a minute and is kept for the next time")
        exported = torch.export.export(program, tuple(inputs))
        inductor.aoti_compile_and_package(
            exported, package_path=str(made), inductor_configs=_OPTIONS
        )
        if kept is not made:
            with suppress(RunError):  # it need not be kept
                write_bytes(kept, made.read_bytes())
        return inductor.aoti_load_package(str(made), run_single_threaded=True).loader.run


class _NumbersUnseen(TorchFunctionMode):
    """Refuses what leaves torch with numbers, for it would not be recorded."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function."""
        if func in _SEEING and not eager(args[0]):
            raise RuntimeError(f"{func.__name__} takes numbers out of the recorded step")
        return func(*args, **(kwargs or {}))


class _Recorder(TorchDispatchMode):
    """Operators in the order in which they ran, as a graph.

    What was there before is an input. So is what is still held when the work is done: the graph
    writes it to where it is.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.inputs: list[Tensor] = []
        self._graph = fx.Graph()
        self._nodes: Any = WeakIdKeyDictionary()
        self._last_input = self._graph._root
        self._before: dict[int, tuple[Any, Any]] = {}
        self._made: list[weakref.ref[Tensor]] = []

    def record(self, work: Callable[[], VecStep]) -> tuple[VecStep, fx.GraphModule]:
        """Return what the work returns, and its program; numbers are as before."""
        try:
            with recording(), _NumbersUnseen(), self:
                found = work()
            for value in self._held():
                made = self._nodes.pop(value)
                self._graph.call_function(torch.ops.aten.copy_.default, (self._take(value), made))
        finally:
            for storage, numbers in self._before.values():
                storage.copy_(numbers)
        self._graph.output(())
        return found, fx.GraphModule({}, self._graph)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note an operator and run it."""
        kwargs = kwargs or {}
        if func is _TO_HOST:
            raise RuntimeError("a number is taken out of the recorded step")
        given = tree_map(self._node, (args, kwargs))
        node = self._graph.call_function(func, *given)
        with recording(False):
            found = func(*args, **kwargs)
        if isinstance(found, Tensor):
            self._note(found, node)
        else:
            for place, part in enumerate(found or ()):
                self._note(part, self._graph.call_function(operator.getitem, (node, place)))
        return found

    def _note(self, found: Tensor, node: fx.Node) -> None:
        if found not in self._nodes:  # else it was written in place
            self._nodes[found] = node
            self._made.append(weakref.ref(found))

    def _node(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if value not in self._nodes:
            self._take(value)
        return self._nodes[value]

    def _take(self, value: Tensor) -> fx.Node:
        """Make an input of a tensor, and keep its numbers, which the work may change."""
        with self._graph.inserting_after(self._last_input):
            node = self._graph.placeholder(f"input_{len(self.inputs)}")
        self._last_input = self._nodes[value] = node
        self.inputs.append(value)
        storage = value.untyped_storage()
        self._before.setdefault(storage.data_ptr(), (storage, storage.clone()))  # type: ignore[no-untyped-call]
        return node

    def _held(self) -> list[Tensor]:
        """Return what is still held of what was made; of views, the tensor that they view.

        Raises:
            RuntimeError: part of a tensor is held that is not held itself.
        """
        largest: dict[int, Tensor] = {}
        for made in self._made:
            value = made()
            place = 0 if value is None else value.untyped_storage().data_ptr()
            if value is None or place in self._before:
                continue
            if value.numel() >= largest.setdefault(place, value).numel():
                largest[place] = value
        for value in largest.values():
            if value.nbytes != value.untyped_storage().nbytes():
                raise RuntimeError("a part is held of a tensor that is not")
        return list(largest.values())
