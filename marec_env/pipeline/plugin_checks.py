"""What users' own plug-ins of the pipeline and of rewards give, checked in one place.

Built-in plug-ins are tested instead, and pay for none of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from marec_env.errors import ConfigError
from marec_env.pipeline.component import ActionForm, Component
from marec_env.pipeline.config import PipelineConfig
from marec_env.pipeline.knowledge import Knowledge
from marec_env.pipeline.memory import SessionMemory
from marec_env.pipeline.request import Request
from marec_env.pipeline.selection import sort_rows
from marec_env.registry import naming, numbers

_PARTS: dict[str, tuple[torch.dtype, tuple[str, ...]]] = {
    "profile_shift": (torch.float32, ("cf",)),
    "profile_text": (torch.float32, ("text",)),
    "profile_cf": (torch.float32, ("cf",)),
    "quotas": (torch.int64, ("channels",)),
    "candidates": (torch.int64, ("candidates",)),
    "candidate_channel": (torch.int64, ("candidates",)),
    "enabled": (torch.float32, ("blocks",)),
    "blocks": (torch.float32, ("candidates", "blocks")),
    "compute_cost": (torch.float32, ()),
    "bonus": (torch.float32, ("candidates",)),
    "veto": (torch.float32, ("candidates",)),
    "scores": (torch.float32, ("candidates",)),
    "slate": (torch.int64, ("slate",)),
    "slate_slot": (torch.int64, ("slate",)),
    "slate_logits": (torch.float32, ("candidates",)),
    "extra_cost": (torch.float32, ()),
}
"""What a component may write into a request, ``[B, ...]`` each, by the sizes' names."""


def checked_offer(what: str, found: object, request: Request) -> Tensor:
    """Return a channel's offer, if it is int64 ``[B, L]`` of items of the catalog and -1."""
    offer = numbers(what, found, request.num_sessions, None, dtype=torch.int64)
    last = request.knowledge.num_items - 1
    if bool(((offer < -1) | (offer > last)).any()):
        raise ConfigError(f"{what} offered items outside 0 ... {last}; use -1 for none")
    return offer


def checked_slate(slate: Tensor, size: int, memory: SessionMemory, what: str = "slate") -> None:
    """Refuse items that cannot be shown, or could not be candidates.

    Args:
        slate: int64 ``[B, K]``.
        size: K.
        memory: what the sessions have seen.
        what: they are, for messages.

    Raises:
        ConfigError: wrong shape (a slate is neither short nor empty), items outside the catalog,
            an item twice in one row, or one that the session has seen before.
    """
    expected = (memory.num_sessions, size)
    if tuple(slate.shape) != expected:
        raise ConfigError(f"{what} has shape {tuple(slate.shape)}; needed: {expected}")
    last = memory.knowledge.num_items - 1
    if slate.dtype != torch.int64 or bool(((slate < 0) | (slate > last)).any()):
        raise ConfigError(f"{what} holds items outside 0 ... {last} (torch.int64)")
    ordered = sort_rows(slate)
    repeated = (ordered[:, 1:] == ordered[:, :-1]).any(1)
    if bool(repeated.any()):
        raise ConfigError(
            f"{what} of session {int(repeated.nonzero()[0])} holds an item twice; "
            "give each item at most once"
        )
    seen = memory.seen.gather(1, slate).nonzero()
    if seen.numel():
        row, place = seen[0].tolist()
        raise ConfigError(
            f"{what} of session {row} holds item {int(slate[row, place])}, which it has seen; "
            "give only items outside pipeline.memory.seen"
        )


def guarded(place: str, kind: type[Component]) -> type[Component]:
    """Return a component class whose failures name it, and whose results are checked.

    Args:
        place: ``package.module:Class``, for messages.
        kind: the user's own class.

    Raises:
        ConfigError: its name, or what it lists, is not made of names.
    """
    what = f"component '{place}'"
    name = getattr(kind, "name", "")
    if not (isinstance(name, str) and name.isidentifier()):
        raise ConfigError(f"{what}: name {name!r} is no name; use letters, digits and _")
    for part in ("fields", "before"):
        names = getattr(kind, part)
        if not (isinstance(names, tuple | list) and all(isinstance(n, str) for n in names)):
            raise ConfigError(f"{what}: {part} is {names!r}; list names: {part} = ('session',)")
    if kind.__abstractmethods__:
        missing = ", ".join(sorted(kind.__abstractmethods__))
        raise ConfigError(f"{what} lacks {missing}; define it as marec_env.pipeline.Component says")
    return type(kind.__name__, (_Guard, kind), {"_what": what, "__module__": kind.__module__})


class _Guard(Component):
    """Stands before a user's own class: calls it, names it, and checks what it gave."""

    _what = ""
    _width: int | None = None

    def _called(self, method: str, *arguments: Any) -> tuple[str, Any]:
        """Return what the user's own method is called, and what it gave."""
        what = f"{self._what}: {method}"
        with naming(what):
            found = getattr(super(), method)
            return what, found(*arguments) if arguments or callable(found) else found

    def __init__(self, config: PipelineConfig) -> None:
        with naming(self._what):
            super().__init__(config)
        if not hasattr(self, "granted"):
            raise ConfigError(f"{self._what}: its __init__ must call super().__init__(config)")

    @property
    def action_space(self) -> spaces.Space[Any]:
        space: spaces.Space[Any] = self._called("action_space")[1]
        return space

    def default_action(self) -> Tensor:
        default: Tensor = self._called("default_action")[1]
        return default

    def initial_state(self, knowledge: Knowledge) -> dict[str, Tensor]:
        what, found = self._called("initial_state", knowledge)
        if not (isinstance(found, dict) and all(isinstance(v, Tensor) for v in found.values())):
            raise ConfigError(f"{what} returned {found!r}; return tensors by name")
        self._check_decisions()
        return found

    def _check_decisions(self) -> None:
        space = self.action_space
        _check_space(self._what, space)
        what, default = self._called("default_action")
        if not isinstance(default, Tensor):
            raise ConfigError(f"{what} returned {type(default).__name__}; return a tensor")
        fitting = ActionForm(what, space, 1, default.device).fit(default.unsqueeze(0))
        assert isinstance(fitting, Tensor)
        if not space.contains(fitting[0].cpu().numpy().astype(space.dtype)):
            raise ConfigError(f"{what} returned {default.tolist()}, which is not in {space}")

    def observe(self, view: Mapping[str, Tensor]) -> Tensor:
        what, found = self._called("observe", view)
        rows = next((len(value) for value in view.values()), None)
        seen = numbers(what, found, rows, self._width)
        self._width = seen.shape[1]
        return seen

    def active(self, memory: SessionMemory) -> Tensor | None:
        what, found = self._called("active", memory)
        return None if found is None else numbers(what, found, len(memory.seen), dtype=torch.bool)

    def summary(self, request: Request, action: Tensor) -> Tensor:
        what, found = self._called("summary", request, action)
        return numbers(what, found, request.num_sessions, None)

    def act(self, request: Request, action: Tensor) -> None:
        slate = None if request.slate is None else request.slate.clone()
        what, _ = self._called("act", request, action)
        self._check_request(what, request)
        if slate is not None and not torch.equal(slate, request.need("slate")):
            raise ConfigError(
                f"{what} changed the slate after the ranking, so that the recorded propensity is "
                "of another one; come before 'ranking' and use request.add_bonus or add_veto"
            )

    def _check_request(self, what: str, request: Request) -> None:
        config, knowledge = self.config, request.knowledge
        sizes = {
            "cf": knowledge.cf.shape[1],
            "text": knowledge.text.shape[1],
            "channels": len(config.recall.channels),
            "candidates": config.candidates,
            "blocks": len(config.blocks),
            "slate": config.slate_size,
        }
        for name, (dtype, shape) in _PARTS.items():
            part = getattr(request, name)
            if part is not None:
                of = f"{what}: request.{name}"
                wanted = (request.num_sessions, *map(sizes.get, shape))
                numbers(of, part, *wanted, dtype=dtype, verb="holds")
                if name in ("candidates", "slate"):
                    checked_slate(part, sizes[name], request.memory, of)
        if request.veto is not None and bool((request.veto < 0).any()):
            raise ConfigError(f"{what} made a veto negative; request.add_bonus adds to scores")

    def learn(self, request: Request, clicks: Tensor) -> None:
        forms = {name: (value.dtype, value.shape) for name, value in self.state.items()}
        what, _ = self._called("learn", request, clicks)
        if set(self.state) != set(forms):
            raise ConfigError(
                f"{what} left the state {sorted(self.state)}; initial_state has {sorted(forms)}"
            )
        for name, (dtype, shape) in forms.items():
            of = f"{what}: state '{name}'"
            numbers(of, self.state[name], *shape, dtype=dtype, verb="holds")


def _check_space(what: str, space: object) -> None:
    """Refuse an action space that no learner and no view could act in."""
    if isinstance(space, spaces.Box):
        if len(space.shape) != 1 or space.shape[0] == 0:
            raise ConfigError(f"{what}: action_space has shape {space.shape}; give some numbers")
        if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
            raise ConfigError(f"{what}: action_space is unbounded; give it finite bounds")
        if not bool((space.low < space.high).all()):
            raise ConfigError(f"{what}: action_space has a number whose bounds leave no choice")
    elif isinstance(space, spaces.Discrete):
        if space.start != 0:
            raise ConfigError(f"{what}: action_space starts at {space.start}; start at 0")
    elif isinstance(space, spaces.MultiDiscrete):
        if len(space.shape) != 1 or space.shape[0] == 0 or bool(space.start.any()):
            raise ConfigError(f"{what}: action_space {space} is no row of choices from 0 on")
    else:
        raise ConfigError(
            f"{what}: action_space is {space!r}; use a Box, a Discrete or a MultiDiscrete"
        )
