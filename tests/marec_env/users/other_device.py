"""A device that is not the CPU, on a machine without one.

Tensors there say that they are on ``meta`` and hold CPU numbers, so that every operation works,
also those whose shape depends on numbers; one that mixes them with a CPU tensor of more than one
number raises, as on CUDA. (Fake CUDA tensors let some mixtures pass, among them a CPU tensor
indexed by a CUDA mask, and cannot index at all on a build without CUDA.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from marec_env.world import World

DEVICE = torch.device("meta")
_WAITS = {  # whose result, or its shape, the host has to know
    "_local_scalar_dense",
    "_unique2",
    "bincount",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
}
_fixed = False  # whether what waits for the device is refused
_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class There(torch.Tensor):
    """A tensor on the other device."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> There:
        found = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=DEVICE
        )
        found.held = held
        return found

    def __repr__(self) -> str:
        return f"There({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _FromNumbers(TorchFunctionMode):
    """``torch.tensor`` drops its numbers on ``meta``: make them on the CPU and move them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        wanted = func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None
        if wanted and torch.device(kwargs["device"]) == DEVICE and not isinstance(args[0], There):
            if _fixed and not isinstance(args[0], int | float):
                raise RuntimeError(f"{func.__name__} copies to the device, and waits for it")
            del kwargs["device"]
            return There(func(*args, **kwargs))
        return func(*args, **kwargs)


@contextmanager
def other_device() -> Iterator[None]:
    """Within, what is made on :data:`DEVICE` is a :class:`There`."""
    with _Dispatch(), _FromNumbers():
        yield


@contextmanager
def nothing_waits() -> Iterator[None]:
    """Within, what waits for the device, or copies to or from it, raises: the two conditions under
    which a step can be captured as a CUDA graph are one device and shapes that are fixed.
    """
    global _fixed
    _fixed = True
    try:
        yield
    finally:
        _fixed = False


def tensors_of(value: Any) -> list[torch.Tensor]:
    """Return the tensors among an operation's arguments or results, which nest lists and tuples
    alone: a tenth of the time of PyTorch's own function for any tree.
    """
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in tensors_of(part)]
    return []


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    """Return arguments or results with a function's value instead of each tensor."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, list | tuple):
        return type(value)(_each(function, part) for part in value)
    return value


def _refuse_waits(func: Any, tensors: list[torch.Tensor], args: Any, kwargs: Any) -> None:
    there = [isinstance(part, There) for part in tensors]
    name = func.overloadpacket.__name__
    waits = name in _WAITS or (name == "repeat_interleave" and len(tensors) > 0)
    if name in ("index", "index_put", "index_put_"):
        places = [part for part in args[1] if part is not None]
        waits = any(part.dtype in (torch.bool, torch.uint8) for part in places)
    if func in _COPIES:
        target = kwargs.get("device")
        leaves = target is not None and (torch.device(target) == DEVICE) != there[0]
        many = any(part.dim() for part in tensors)
        waits = many and (leaves or len(set(there)) > 1)
    if waits and (any(there) or func in _COPIES):
        raise RuntimeError(f"{func} waits for the device")


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given = tensors_of((args, (*kwargs.values(),)))
    if _fixed:
        _refuse_waits(func, given, args, kwargs)
    there = {id(value.held): value for value in given if isinstance(value, There)}
    here = [value for value in given if not isinstance(value, There) and value.dim()]
    if there and here and func not in _COPIES:
        raise RuntimeError(f"{func} mixes devices: {[tuple(value.shape) for value in given]}")
    target = kwargs.get("device")
    if target is not None and torch.device(target) == DEVICE:
        kwargs = {**kwargs, "device": torch.device("cpu")}
        stays = False
    else:
        stays = not there or target is not None

    def held(value: torch.Tensor) -> torch.Tensor:
        return value.held if isinstance(value, There) else value

    def wrap(value: torch.Tensor) -> torch.Tensor:
        return there.get(id(value), value if stays else There(value))

    found = func(*_each(held, args), **{name: _each(held, one) for name, one in kwargs.items()})
    if func is torch.ops.aten.copy_.default:  # what was written to says where it is
        stays = id(found) not in there
    return _each(wrap, found)


def to_there(value: Any) -> Any:
    """Return a tensor, or what is made of tensors, on the other device."""
    if isinstance(value, torch.Tensor):
        return There(value.clone())
    if isinstance(value, dict):
        return {name: to_there(part) for name, part in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [part.name for part in dataclasses.fields(value)]
        return dataclasses.replace(value, **{n: to_there(getattr(value, n)) for n in names})
    return value


def world_there(world: World) -> World:
    """Return a world whose simulators play on the other device."""
    return dataclasses.replace(
        world,
        config=world.config.model_copy(update={"device": str(DEVICE)}),
        catalog=to_there(world.catalog),
        population=to_there(world.population),
        knowledge=world.knowledge.to(DEVICE),
    )


def back(value: torch.Tensor) -> torch.Tensor:
    """Return the numbers of a tensor that must be on the other device."""
    assert isinstance(value, There), f"{value} is on the CPU"
    return value.held
