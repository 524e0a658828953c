"""A component of the pipeline: an agent that decides one part of each request.

The built-in components use what is here and nothing else. One of your own is a subclass, named in
``pipeline.components`` as ``package.module:Class``::

    class Reminder(Component):
        '''Pushes new items the harder, the longer ago it last did.'''

        name = "reminder"
        fields = ("session", "waited")  # what it sees: of the session, and of its own state
        before = ("ranking",)

        @property
        def action_space(self) -> spaces.Box:
            return spaces.Box(-1.0, 1.0, (1,))

        def initial_state(self, knowledge: Knowledge) -> dict[str, Tensor]:
            return {"waited": torch.zeros(1)}

        def act(self, request: Request, action: Tensor) -> None:
            request.add_bonus(self.state["waited"] * unit(action) * request.candidate_freshness)

        def learn(self, request: Request, clicks: Tensor) -> None:
            self.state["waited"] = self.state["waited"] + 0.1

        def default_action(self) -> Tensor:
            return torch.tensor([-1.0])
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from marec_env.errors import ConfigError
from marec_env.pipeline.config import PipelineConfig
from marec_env.pipeline.knowledge import Knowledge
from marec_env.pipeline.memory import SessionMemory
from marec_env.pipeline.request import Request
from marec_env.registry import Registry
from marec_env.vector import Action

__all__ = ["COMPONENTS", "ActionForm", "Component", "unit"]


class Component(ABC):
    """One agent: what it sees, what it decides, and how its decision enters the request.

    Attributes:
        name: the agent is called ``<name>_0``.
        fields: the observation fields it asks for (:mod:`marec_env.pipeline.observations`); the
            name of a part of its own state gives that part, float32 ``[B, k]``.
        before: names of components that must come later in the pipeline, if present.
        objective: the reward terms of its own f_i and their weights, unless configured otherwise.
        knowledge: of the items; the pipeline gives it before it asks for the action space.
        state: what it remembers of each session, ``[B, ...]`` each, from :meth:`initial_state`.
            The pipeline begins, stores and restores it with the session.
    """

    name: ClassVar[str]
    fields: ClassVar[tuple[str, ...]] = ("session",)
    before: ClassVar[tuple[str, ...]] = ()
    objective: ClassVar[Mapping[str, float]] = MappingProxyType({"engagement": 1.0})
    knowledge: Knowledge

    def __init__(self, config: PipelineConfig) -> None:
        """Args:
        config: the pipeline's section; ``data_access`` may take fields away.

        Raises:
            ConfigError: ``data_access`` grants what the component does not ask for, or nothing.
        """
        self.config = config
        self.state: dict[str, Tensor] = {}
        self._default: Tensor | None = None
        granted = config.data_access.get(self.name, self.fields)
        place = f"pipeline.data_access.{self.name}"
        for field in granted:
            if field not in self.fields:
                raise ConfigError(
                    f"{place} grants '{field}', which the component does not ask for (it asks for: "
                    f"{', '.join(self.fields)}); leave it out"
                )
        self.granted = tuple(field for field in self.fields if field in granted)
        if not self.granted:
            raise ConfigError(
                f"{place} grants none of the fields the component uses "
                f"({', '.join(self.fields)}); grant at least one"
            )

    @property
    def agent(self) -> str:
        """The agent's name in the environment."""
        return f"{self.name}_0"

    @property
    @abstractmethod
    def action_space(self) -> spaces.Space[Any]:
        """The decisions of one session: a bounded Box, Discrete or MultiDiscrete."""

    def initial_state(self, knowledge: Knowledge) -> dict[str, Tensor]:
        """Return what it remembers of one session at its start, by name; nothing by default."""
        return {}

    def observe(self, view: Mapping[str, Tensor]) -> Tensor:
        """Return the observation, float32 ``[B, d]``, from the granted fields."""
        return torch.cat([view[name] for name in self.granted], dim=1)

    @abstractmethod
    def act(self, request: Request, action: Tensor) -> None:
        """Let a batch of actions enter the request, and nothing else: state changes in
        :meth:`learn`, for a request may be played again to ask what another action would have done.
        """

    def learn(self, request: Request, clicks: Tensor) -> None:  # noqa: B027  (need not be given)
        """Take note of the answer (float32 ``[B, K]``); the memory is as before the request."""

    def active(self, memory: SessionMemory) -> Tensor | None:
        """Return whose next action counts, bool ``[B]``; ``None``: everybody's, always."""
        return None

    @abstractmethod
    def default_action(self) -> Tensor:
        """Return the hand-set decision of one session, in the action space's form."""

    def default(self, sessions: int, device: torch.device) -> Tensor:
        """Return :meth:`default_action` for all sessions, ``[B, ...]``."""
        if self._default is None:
            self._default = self.default_action().to(device)
        return self._default.expand(sessions, *self._default.shape)

    def decisions(self) -> tuple[str, ...]:
        """Return a name for each number of an action, in order, or none: they are numbered then."""
        return ()

    def summary(self, request: Request, action: Tensor) -> Tensor:
        """Return what a fixed message says, about [-1, 1], ``[B, k]``: the action itself."""
        return action.to(torch.float32).reshape(action.shape[0], -1)


def unit(action: Tensor) -> Tensor:
    """Map a Box action from [-1, 1] to [0, 1]; what lies outside is clipped."""
    return (action.clamp(-1.0, 1.0) + 1.0) * 0.5


class ActionForm:
    """What a batch of one agent's actions must be.

    Box: float32 ``[B, n]``, where numbers may lie outside the bounds (the agent clips them);
    Discrete: int64 ``[B]``; MultiDiscrete: int64 ``[B, n]``; Tuple: a tuple of such batches.
    """

    def __init__(
        self, agent: str, space: spaces.Space[Any], sessions: int, device: torch.device
    ) -> None:
        """Args:
        agent: whose, for messages.
        space: of one session.
        sessions: B.
        device: of the batches.
        """
        self._agent = agent
        self._parts = (
            tuple(ActionForm(agent, part, sessions, device) for part in space.spaces)
            if isinstance(space, spaces.Tuple)
            else ()
        )
        self._shape = (sessions, *(space.shape or ()))
        count = getattr(space, "nvec", getattr(space, "n", None))
        self._most = 0 if count is None else int(np.max(count)) - 1
        self._count = None if count is None else torch.as_tensor(count, device=device)
        self._wrong = (
            None if device.type == "cpu" else torch.zeros((), dtype=torch.bool, device=device)
        )

    def check(self) -> None:
        """Refuse what :meth:`fit` has met since: off the CPU it notes wrong numbers, plays 0 in
        their place, and lets nothing wait.

        Raises:
            ConfigError: an action held such.
        """
        for part in (self, *self._parts):
            if part._wrong is not None and bool(part._wrong):
                part._wrong.fill_(False)
                raise ConfigError(f"{self._agent}: an earlier action did not fit its space")

    def _no(self, wrong: Tensor | NDArray[np.bool_], action: Tensor, why: str) -> Tensor:
        """Refuse an action where numbers are ``wrong`` (bool, of its shape), now or later."""
        if isinstance(wrong, Tensor):
            assert self._wrong is not None
            self._wrong |= wrong.any()
            return torch.where(wrong, 0, action)
        if wrong.any():
            raise ConfigError(f"{self._agent}: action holds {why}")
        return action

    def fit(self, action: Action) -> Action:
        """Return a batch in the form that components work on.

        Raises:
            ConfigError: wrong form, shape or kind of numbers; a number is not finite, or no choice.
        """
        agent = self._agent
        if self._parts:
            if not isinstance(action, tuple) or len(action) != len(self._parts):
                raise ConfigError(f"{agent}: action is no tuple of {len(self._parts)} batches")
            pairs = zip(self._parts, action, strict=True)
            return tuple(form.fit(part) for form, part in pairs)  # type: ignore[misc]
        if not isinstance(action, Tensor) or action.is_complex():
            kind = action.dtype if isinstance(action, Tensor) else type(action).__name__
            raise ConfigError(f"{agent}: action is a {kind}; give a tensor of numbers")
        if action.shape != self._shape:
            raise ConfigError(
                f"{agent}: action has shape {list(action.shape)}; needed: {list(self._shape)}"
            )
        if self._count is None:
            action = action.to(torch.float32)
            why = "numbers that are not finite"
            if self._wrong is not None:
                return self._no(~action.isfinite(), action, why)
            return self._no(~np.isfinite(action.detach().numpy()), action, why)
        if action.is_floating_point():
            raise ConfigError(
                f"{agent}: action is not made of whole numbers but of {action.dtype}; "
                "choices are torch.int64"
            )
        action = action.to(torch.int64)
        allowed = f"choices outside 0 ... {self._most}"
        if self._wrong is not None:
            return self._no((action < 0) | (action >= self._count), action, allowed)
        numbers, count = action.numpy(), self._count.numpy()  # numpy: fewer, quicker calls
        return self._no((numbers < 0) | (numbers >= count), action, allowed)


COMPONENTS: Registry[type[Component]] = Registry("component")
