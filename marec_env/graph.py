"""A step of a simulator as one call: one launch from Python where there were a thousand.

On CUDA it is a CUDA graph; one session on the CPU may have its step compiled
(:mod:`marec_env.step_program`). Either works at fixed addresses. So a step is recorded once on
tensors that stay: what it reads is copied to them, what it changes goes back to where it was read,
and what it returns is copied out. The draws are counted (:mod:`marec_env.random`), so that each
replay draws its own.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, NamedTuple, Protocol

import torch
from pydantic import BaseModel
from torch import Tensor

from marec_env.step_program import CompiledTape
from marec_env.vector import Action, VecStep

_LOG = logging.getLogger(__name__)
_WARM = 2  # steps before recording: they make what is kept from then on
Step = Callable[[Mapping[str, Action]], VecStep]
Path = tuple[Any, ...]


class Tape(Protocol):
    """What records and replays; :class:`CudaTape`, or a stand-in where there is no GPU."""

    def record(self, work: Callable[[], VecStep]) -> VecStep:
        """Record work without doing it, and return its results, which :meth:`replay` fills."""
        ...

    def replay(self) -> None:
        """Do the recorded work."""
        ...


@contextmanager
def capturing(
    graph: torch.cuda.CUDAGraph, stream: torch.cuda.Stream | None = None
) -> Iterator[None]:
    """Capture what is done inside as a graph. Garbage waits until it is done: a collection may end
    another graph, of an earlier evaluation say, which CUDA takes for a fault of this capture.
    """
    collected = gc.isenabled()
    gc.disable()
    try:
        with torch.cuda.graph(graph, stream=stream):
            yield
    finally:
        if collected:
            gc.enable()


class CudaTape:
    """A CUDA graph."""

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()

    def record(self, work: Callable[[], VecStep]) -> VecStep:
        """See :class:`Tape`."""
        with capturing(self._graph):
            return work()

    def replay(self) -> None:
        """See :class:`Tape`."""
        self._graph.replay()


class _Kept(NamedTuple):
    """A recorded step."""

    tape: Tape
    given: dict[str, Action]
    before: dict[Path, Tensor]
    """What the owner held when it was recorded, and holds at every replay."""
    found: VecStep
    last: Any


class StepGraph:
    """A step that is recorded when it has run twice, and replayed from then on."""

    def __init__(
        self, owner: Any, step: Step, tape: Callable[[], Tape] = CudaTape, lasting: bool = False
    ) -> None:
        """Args:
        owner: holds everything that a step changes, in attributes, mappings and lists; in ``last``
            what it keeps of its latest step.
        step: from the agents' actions to what came of them.
        tape: makes what records.
        lasting: whether recording costs so much that a recorded step outlasts :meth:`forget`. What
            it returns holds until the next step only.
        """
        self._owner, self._step, self._tape, self._lasting = owner, step, tape, lasting
        self._off = False
        self._warm = 0
        self._kept: _Kept | None = None
        self._moved = False

    @classmethod
    def of(cls, simulator: Any, step: Step) -> StepGraph | None:
        """Return a simulator's step as a graph: on CUDA, if all agents act at once and no plug-in
        of the user's own must be checked.
        """
        if simulator.device.type != "cuda":
            return None
        if len(simulator.turns) > 1 or simulator.own_plug_ins:
            own = simulator.own_plug_ins
            why = "plug-ins of your own are checked" if own else "agents take turns"
            _LOG.warning("a step is not recorded as one CUDA graph: %s", why)
            return None
        return cls(simulator, step)

    @classmethod
    def compiled(cls, simulator: Any, step: Step) -> StepGraph | None:
        """Return a simulator's step on the CPU as a compiled program, if no plug-in of the user's
        own must be checked.
        """
        if simulator.own_plug_ins:
            _LOG.warning("plug-ins of your own are checked, so that a step is not compiled")
            return None
        if simulator.world.knowledge.shards is not None:
            _LOG.warning("item shards are asked at each step, which is thus not compiled")
            return None
        return cls(simulator, step, CompiledTape, lasting=True)

    def forget(self) -> None:
        """Record anew, for tensors of the owner have been replaced; or put the old ones back."""
        self._moved = True
        if not self._lasting:
            self._warm = 0
            self._kept = None

    def __call__(self, actions: Mapping[str, Action]) -> VecStep:
        """Return what the step returns, in tensors of the caller's own."""
        if self._kept is None and (self._off or self._warm < _WARM or not self._record(actions)):
            self._warm += 1
            return self._step(actions)
        assert self._kept is not None
        tape, given, before, found, last = self._kept
        if self._moved and self._lasting:
            self._settle(before, {path: _at(self._owner, path) for path in before})
            self._moved = False
        for agent, action in actions.items():
            for old, new in zip(_parts(given[agent]), _parts(action), strict=True):
                old.copy_(new)
        tape.replay()
        self._owner.last = last
        if self._lasting:
            return found
        made = own_copy({part.name: getattr(found, part.name) for part in fields(found)})
        return replace(found, **made)

    def _record(self, actions: Mapping[str, Action]) -> bool:
        given = {
            agent: tuple(part.clone() for part in action)
            if isinstance(action, tuple)
            else action.clone()
            for agent, action in actions.items()
        }
        before = _tensors(self._owner)

        def work() -> VecStep:
            found = self._step(given)
            self._settle(before, _tensors(self._owner))
            return found

        tape = self._tape()
        try:
            found = tape.record(work)
            self._kept = _Kept(tape, given, before, found, getattr(self._owner, "last", None))
        except Exception as error:
            self._put_back(before, _tensors(self._owner))
            self._off = True
            reason = str(error).split("\n")[0]
            _LOG.warning("a step is not recorded as one call, but runs as it is: %s", reason)
        return not self._off

    def _settle(self, before: dict[Path, Tensor], now: dict[Path, Tensor]) -> None:
        """Write what a step changed to where it was, so that the next replay finds it there."""
        moved: dict[int, tuple[Tensor, Tensor]] = {}
        for path, new in now.items():
            old = before.get(path)
            if old is None or new is old:
                continue
            if id(old) in moved and moved[id(old)][1] is not new:
                raise RuntimeError(f"{path[-1]} shares its tensor with another name")
            moved[id(old)] = (old, new)
        storages = {tensor.untyped_storage().data_ptr() for tensor in before.values()}
        pairs = [  # what lies where others will be written is moved out first
            (old, new.clone() if new.untyped_storage().data_ptr() in storages else new)
            for old, new in moved.values()
        ]
        for old, new in pairs:
            old.copy_(new)
        self._put_back(before, now)

    def _put_back(self, before: dict[Path, Tensor], now: dict[Path, Tensor]) -> None:
        """Let the owner hold the tensors again that it held before."""
        for path, new in now.items():
            if before.get(path, new) is not new:
                _put(self._owner, path, before[path])


def _parts(action: Action) -> tuple[Tensor, ...]:
    return action if isinstance(action, tuple) else (action,)


def _inside(holder: object) -> list[tuple[Any, Any]]:
    """Return what a mapping, a list or an object of this package holds, by key.

    Configurations and frozen records do not change and are left out.
    """
    if isinstance(holder, dict):
        return list(holder.items())
    if isinstance(holder, list | tuple):
        return list(enumerate(holder))
    return list(vars(holder).items()) if _changes(holder) else []


def _tensors(holder: object, path: Path = (), seen: set[int] | None = None) -> dict[Path, Tensor]:
    """Return all tensors that an object holds, by their keys from there."""
    seen = set() if seen is None else seen
    if isinstance(holder, Tensor):
        return {path: holder}
    found: dict[Path, Tensor] = {}
    if id(holder) not in seen:
        seen.add(id(holder))
        for key, value in _inside(holder):
            found |= _tensors(value, (*path, key), seen)
    return found


def _at(holder: Any, path: Path) -> Any:
    """Return what lies at a path."""
    for key in path:
        holder = holder[key] if isinstance(holder, dict | list | tuple) else getattr(holder, key)
    return holder


def _put(owner: Any, path: Path, value: Any) -> None:
    """Put a value at a path; tuples on the way are made anew."""
    holder, key = _at(owner, path[:-1]), path[-1]
    if isinstance(holder, tuple):
        _put(owner, path[:-1], (*holder[:key], value, *holder[key + 1 :]))
    elif isinstance(holder, dict | list):
        holder[key] = value
    else:
        setattr(holder, key, value)


def _changes(holder: object) -> bool:
    kind = type(holder)
    record = getattr(kind, "__dataclass_params__", None)
    return (
        kind.__module__.startswith("marec_env.")
        and hasattr(holder, "__dict__")
        and not isinstance(holder, BaseModel | StepGraph | type)
        and not (record is not None and record.frozen)
    )


def own_copy(value: Any) -> Any:
    """Return nested mappings and tuples with the same numbers in tensors of their own.

    A tensor that is there twice stays one.
    """
    made: dict[int, tuple[Tensor, Tensor]] = {}

    def anew(part: Any) -> Any:
        if isinstance(part, Mapping):
            return {name: anew(inside) for name, inside in part.items()}
        if isinstance(part, tuple):
            return tuple(map(anew, part))
        return made.setdefault(id(part), (torch.empty_like(part), part))[0]

    found = anew(value)
    copy_pairs(list(made.values()))
    return found


def copy_pairs(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Copy the second of each pair to the first, by one launch for each kind of numbers."""
    for kind in {new.dtype for new, _ in pairs}:
        new, old = zip(*[pair for pair in pairs if pair[0].dtype == kind], strict=True)
        torch._foreach_copy_(list(new), list(old))
